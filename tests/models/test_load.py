"""Folders in and out: what a user gets wrong, and pads that are never the end."""

import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from pasture.core.errors import ModelError, RunFolderError
from pasture.models.control_tokens import add_control_tokens
from pasture.models.heads import ScalarModel
from pasture.models.load import HEAD_FILE, load_causal_lm, load_tokenizer, resting_dtype, save_model, stop_token_ids
from pasture.models.sample import SamplerConfig, sample
from pasture.models.tiny import tiny_model, word_tokenizer
from pasture.recipe import start_folder
from tests.disks import mounted

WORDS = ["a", "b", "c"]


@pytest.fixture
def folder(tmp_path):
    tokenizer = word_tokenizer(WORDS)
    save_model(tiny_model("llama", len(tokenizer), seed=0), tokenizer, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **names):
        raise AssertionError("this test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def change_json(path, **changes):
    row = json.loads(path.read_text())
    row.update(changes)
    path.write_text(json.dumps({key: value for key, value in row.items() if value is not None}))


@pytest.mark.parametrize("shape", ["llama", "qwen", "gpt2", "neox"])
def test_a_saved_model_loads_to_the_same_logits(shape, tmp_path):
    tokenizer = word_tokenizer(WORDS)
    model = tiny_model(shape, len(tokenizer), seed=0)
    save_model(model, tokenizer, tmp_path)
    loaded = load_causal_lm(tmp_path)
    ids_BT = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids_BT).logits, model(input_ids=ids_BT).logits)
    assert not loaded.training
    assert loaded.config.eos_token_id == tokenizer.eos_token_id
    assert loaded.config.pad_token_id == tokenizer.pad_token_id
    assert sorted(path.suffix for path in tmp_path.iterdir() if "token" not in path.name) == [
        ".json",
        ".json",
        ".safetensors",
    ]


def test_a_model_loads_in_the_type_asked_for(folder):
    assert load_causal_lm(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert load_causal_lm(folder).dtype == torch.float32


@pytest.mark.parametrize("as_text", [True, False])
def test_a_missing_folder_is_named_without_asking_the_hub(tmp_path, monkeypatch, as_text):
    # The same misspelling as text looks like "org/name" on the hub; a folder "runs" says that it is not.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for load in (load_tokenizer, load_causal_lm):
        with pytest.raises(ModelError, match=r"runs/modle: no such model folder. Check the path"):
            load("runs/modle" if as_text else tmp_path / "runs/modle")


def test_a_folder_without_config_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no config.json"):
        load_causal_lm(tmp_path)


def test_adapters_alone_are_told_from_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"holds adapters alone: .* merge them into their base model first"):
        load_causal_lm(tmp_path)


def test_a_tokenizer_without_end_token_is_refused(folder):
    change_json(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelError, match="no end token"):
        load_tokenizer(folder)


def test_a_tokenizer_that_is_missing_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer\. Copy tokenizer\.json and tokenizer_config\.json there"):
        load_tokenizer(folder)


def test_what_is_said_of_a_tokenizer_over_several_lines_is_told_whole(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"from one of: \(1\) .*[^:]\. Expected a folder"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 512, "num_attention_heads": 9}, r"The hidden size \(512\) is not a multiple .* heads \(9\)\."),
        ({"hidden_size": "wide"}, r"Field 'hidden_size' expected int, got str \(value: 'wide'\)\."),
    ],
)
def test_a_config_that_contradicts_itself_is_named(folder, changes, said):
    change_json(folder / "config.json", **changes)
    for load in (load_tokenizer, load_causal_lm):
        with pytest.raises(ModelError, match=rf"model: its config\.json cannot be used\. {said} Put it right"):
            load(folder)


def test_weights_of_other_sizes_are_one_sentence_and_no_table(folder, capfd):
    change_json(folder / "config.json", intermediate_size=48)
    # By hand: the tiny model has two layers of three matrices each, 32 wide and 64 inside.
    first = r"\S*layers\.0\.mlp\.down_proj\.weight, \[32, 64\] in the file, \[32, 48\] by the config"
    with pytest.raises(ModelError, match=rf"6 weights have other sizes .*\(first: {first}\)"):
        load_causal_lm(folder)
    assert capfd.readouterr() == ("", "")


def test_a_model_of_the_hub_is_told_how_it_becomes_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = r"hf download org/name --local-dir FOLDER; then name FOLDER\."
    for named in (start_folder, lambda name: load_causal_lm(Path(name))):
        with pytest.raises(ModelError, match=command):
            named("org/name")
        with pytest.raises(ModelError, match=r"^((?!hf download).)*$"):
            named("a/path/to/it")


def test_the_folder_above_a_model_is_asked_whether_the_model_is_meant(folder):
    with pytest.raises(ModelError, match=rf"has no config\.json, so it is no model folder\. Did you mean {folder}\?"):
        load_causal_lm(folder.parent)
    (folder / HEAD_FILE).touch()
    with pytest.raises(ModelError, match=rf"holds no {HEAD_FILE}.*Did you mean {folder}\?"):
        ScalarModel.load(folder.parent)


def test_pickled_weights_are_refused(folder):
    model = load_causal_lm(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights"):
        load_causal_lm(folder)


def test_missing_weights_are_an_error_not_random_numbers(folder, tmp_path):
    scalar = ScalarModel.from_causal_lm(tiny_model("neox", 12, seed=0))
    scalar.save(tmp_path / "scalar")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / file, tmp_path / "scalar" / file)
    with pytest.raises(ModelError, match=r"is a reward or value model: it scores answers and gives none\. Name the"):
        load_causal_lm(tmp_path / "scalar")
    (tmp_path / "scalar" / HEAD_FILE).unlink()
    with pytest.raises(ModelError, match=r"lacks 1 weights .*(embed_out|lm_head)"):
        load_causal_lm(tmp_path / "scalar")


def test_damaged_weights_are_named(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    said = (
        rf"{folder} cannot be loaded: a file of its weights is damaged or cut short\..*\w\. Copy or download it again"
    )
    with pytest.raises(ModelError, match=said):
        load_causal_lm(folder)


def test_an_unknown_kind_of_model_is_named(folder):
    change_json(folder / "config.json", model_type="no-such-model")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_causal_lm(folder)


@pytest.mark.parametrize("pad", ["<eos>", None])
@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_a_pad_that_is_missing_or_ends_answers_becomes_one_of_its_own(shape, pad, tmp_path):
    tokenizer = word_tokenizer(WORDS)
    size = len(tokenizer)
    model = tiny_model(shape, size, seed=0)
    save_model(model, tokenizer, tmp_path)
    # Without its own name for it, "<pad>" is an added token still; without that, only a new one is left.
    change_json(tmp_path / "tokenizer_config.json", pad_token=pad)
    reserved = load_tokenizer(tmp_path)
    assert reserved.pad_token == "<pad>"
    assert len(reserved) == size
    _forget_pad(tmp_path, size)
    added = load_tokenizer(tmp_path)
    assert added.pad_token == "[PAD]"
    assert added.pad_token_id == size
    assert added.pad_token_id != added.eos_token_id
    loaded = load_causal_lm(tmp_path)
    assert loaded.config.pad_token_id == size
    # AlpacaFarm's rule: the new rows of both matrices are the mean of the old ones.
    for layer, old in (
        (loaded.get_input_embeddings(), model.get_input_embeddings()),
        (loaded.get_output_embeddings(), model.get_output_embeddings()),
    ):
        assert layer.weight.shape[0] == size + 1
        assert torch.equal(layer.weight[:size], old.weight)
        torch.testing.assert_close(layer.weight[size], old.weight.mean(dim=0))


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_who_only_draws_needs_no_row_for_a_pad_that_was_added(shape, tmp_path):
    tokenizer = word_tokenizer(WORDS)
    size = len(tokenizer)
    model = tiny_model(shape, size, seed=0)
    save_model(model, tokenizer, tmp_path / "start")
    change_json(tmp_path / "start" / "tokenizer_config.json", pad_token=None)
    _forget_pad(tmp_path / "start", size)
    drawing = load_causal_lm(tmp_path / "start", row_for_pad=False)
    assert torch.equal(drawing.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert torch.equal(drawing.get_output_embeddings().weight, model.get_output_embeddings().weight)
    assert drawing.generation_config.eos_token_id == tokenizer.eos_token_id
    # Prompts of other lengths are read in one batch, so there are places to fill up.
    samples = sample(drawing, tokenizer.eos_token_id, [[4, 5], [6]] * 200, range(400), SamplerConfig(max_new_tokens=9))
    assert {token for one in samples for token in one.token_ids} <= set(range(size))
    # Saved, it is a model like any other, and can be trained.
    save_model(drawing, load_tokenizer(tmp_path / "start"), tmp_path / "again")
    again = load_causal_lm(tmp_path / "again")
    assert again.get_input_embeddings().weight.shape[0] == again.config.pad_token_id + 1 == size + 1


def test_a_token_that_is_no_pad_gets_its_row_though_the_pad_is_left_out(tmp_path):
    tokenizer = word_tokenizer(WORDS)
    size = len(tokenizer)
    save_model(tiny_model("llama", size, seed=0), tokenizer, tmp_path)
    change_json(tmp_path / "tokenizer_config.json", pad_token=None)
    _forget_pad(tmp_path, size)
    grown = load_tokenizer(tmp_path)
    add_control_tokens(grown, ["<good>"])
    drawing = load_causal_lm(tmp_path, tokenizer=grown, row_for_pad=False)
    assert drawing.get_input_embeddings().weight.shape[0] == grown.convert_tokens_to_ids("<good>") + 1 == size + 2


def _forget_pad(folder, size):
    path = folder / "tokenizer.json"
    row = json.loads(path.read_text())
    for token in row["added_tokens"]:
        if token["content"] == "<pad>":
            token["content"] = "<other>"
    path.write_text(json.dumps(row))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("added_tokens_decoder", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_pad_gets_its_row_where_the_ids_of_the_tokenizer_have_a_gap(tmp_path):
    gap = Tokenizer(WordLevel({"<unk>": 0, "w1": 1, "w2": 2, "</s>": 40}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=gap, unk_token="<unk>", eos_token="</s>").save_pretrained(tmp_path)
    tiny_model("llama", 41, seed=0).save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.pad_token_id == 41
    assert len(loaded) < 41
    assert load_causal_lm(tmp_path).get_input_embeddings().weight.shape[0] == 42


def test_a_distinct_pad_is_kept(folder):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token == "<pad>"
    assert load_causal_lm(folder).get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_rows_beyond_the_tokenizer_stay(tmp_path):
    tokenizer = word_tokenizer(WORDS)
    model = tiny_model("llama", len(tokenizer) + 10, seed=0)
    save_model(model, tokenizer, tmp_path)
    loaded = load_causal_lm(tmp_path)
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_every_end_token_of_the_model_stops_an_answer(folder):
    change_json(folder / "generation_config.json", eos_token_id=[2, 3])
    tokenizer = load_tokenizer(folder)
    model = load_causal_lm(folder, tokenizer=tokenizer)
    assert stop_token_ids(model, tokenizer) == [2, 3, tokenizer.eos_token_id]


def test_a_full_disk_says_so(tmp_path):
    tokenizer = word_tokenizer(WORDS)
    model = tiny_model("llama", len(tokenizer), seed=0)
    with mounted(tmp_path / "disk", "32k") as disk, pytest.raises(RunFolderError, match="cannot write"):
        save_model(model, tokenizer, disk.path / "model")
    with mounted(tmp_path / "disk-2", "32k") as disk, pytest.raises(RunFolderError, match="cannot write"):
        ScalarModel.from_causal_lm(model).save(disk.path / "model")


def test_on_a_card_what_is_not_trained_computes_as_it_was_saved(tmp_path, folder):
    tokenizer = load_tokenizer(folder)
    save_model(load_causal_lm(folder, dtype=torch.bfloat16), tokenizer, tmp_path / "coarse")
    assert resting_dtype(tmp_path / "coarse", "cuda") is torch.bfloat16
    assert resting_dtype(folder, "cuda") is torch.float32
    assert resting_dtype(tmp_path / "coarse", "cpu") is torch.float32
    change_json(tmp_path / "coarse" / "config.json", dtype=None)
    assert resting_dtype(tmp_path / "coarse", "cuda") is torch.float32
