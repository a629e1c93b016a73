"""TRL's side of benchmarks/learn.py, run by the interpreter of TRL's own environment; knows nothing of Pasture.

python learn_trl.py JOB.json
"""

import json
import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
import trl  # type: ignore[import-not-found]  # in its own environment alone
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback


class Clock(TrainerCallback):  # type: ignore[misc]
    """When steps ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ends.append(time.process_time())


def settings(job: dict[str, Any]) -> dict[str, Any]:
    """What all trainers are told."""
    return {
        "output_dir": job["folder"],
        "per_device_train_batch_size": job["batch"],
        "num_train_epochs": 1,
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
        "seed": 0,
    }


def trainer_of(job: dict[str, Any], tokenizer: Any) -> Any:
    """The trainer of a case, rows in the order given."""
    case, rows = job["case"], job["rows"]
    shared = settings(job)
    if case == "rloo":
        config = trl.RLOOConfig(
            **{**shared, "num_train_epochs": 1.0, "max_steps": len(rows) // job["batch"]},
            num_generations=job["group"],
            max_completion_length=job["new_tokens"],
            beta=0.03,
            temperature=1.0,
        )
        data = Dataset.from_list([{"prompt": row["prompt"]} for row in rows])
        model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)

        def reward(completions: list[str], **_: Any) -> list[float]:
            return [len(text) / 100 for text in completions]

        return trl.RLOOTrainer(model, reward, args=config, train_dataset=data, processing_class=tokenizer)
    shared |= {"train_sampling_strategy": "sequential", "max_length": 512}
    if case == "sft":
        data = Dataset.from_list([{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows])
        model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
        config = trl.SFTConfig(**shared, completion_only_loss=True)
        return trl.SFTTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)
    data = Dataset.from_list(rows)
    if case == "dpo":
        model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
        config = trl.DPOConfig(**shared, beta=0.1)
        return trl.DPOTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)
    import numpy as np  # noqa: PLC0415 - for the head alone

    model = AutoModelForSequenceClassification.from_pretrained(job["model"], num_labels=1, dtype=torch.float32)
    with torch.no_grad():
        model.score.weight.copy_(torch.from_numpy(np.load(job["head"])))
    model.config.pad_token_id = tokenizer.pad_token_id
    return trl.RewardTrainer(model, args=trl.RewardConfig(**shared), train_dataset=data, processing_class=tokenizer)


def train(job: dict[str, Any], tokenizer: Any) -> dict[str, float]:
    """Seconds a step, and the last loss."""
    trainer, clock = trainer_of(job, tokenizer), Clock()
    trainer.add_callback(clock)
    trainer.train()
    trainer.save_model(job["folder"])
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    a_step = (clock.ends[-1] - clock.ends[0]) / max(1, len(clock.ends) - 1)
    return {"a_step": a_step, "loss": float(losses[-1])}


def sample(job: dict[str, Any]) -> dict[str, float]:
    """Seconds for a thousand tokens, one answer to every prompt, with `generate` on a batch at a time."""
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    prompts, stops, pad = job["drawing"]["prompts"], job["drawing"]["stops"], 0
    settings = {"do_sample": True, "top_k": 0, "eos_token_id": stops, "pad_token_id": pad}

    def draw(some: list[list[int]], new_tokens: int) -> int:
        width = max(map(len, some))
        ids = torch.tensor([[pad] * (width - len(one)) + one for one in some])
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in some])
        out = model.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, **settings)[:, width:]
        ended = torch.isin(out, torch.tensor(stops)).long()
        return int((ended.cumsum(-1) - ended == 0).sum())

    draw(prompts[:2], 8)
    batch = job["batch"]
    began = time.process_time()
    tokens = sum(
        draw(prompts[start : start + batch], job["drawing"]["new_tokens"]) for start in range(0, len(prompts), batch)
    )
    return {"a_step": 1000 * (time.process_time() - began) / tokens, "tokens": float(tokens)}


def main() -> None:
    """Print the figures of one turn as JSON."""
    if sys.argv[1:] == ["--versions"]:
        print(f"TRL {trl.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")
        return
    logging.disable(logging.WARNING)
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    tokenizer.split_special_tokens = False  # TRL writes the end token as text
    if tokenizer.pad_token == tokenizer.eos_token:
        # transformers' classifier would take the end token for a pad, and read its score one token before it.
        tokenizer.pad_token = tokenizer.unk_token
    began = time.process_time()
    figures = sample(job) if job["case"] == "sampling" else train(job, tokenizer)
    whole = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**figures, "whole": whole, "peak_mib": peak}))


if __name__ == "__main__":
    main()
