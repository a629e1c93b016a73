"""AlpacaEval's evaluator configs, read as they are: YAML, ChatML prompts, parsers, processors and decoders."""
