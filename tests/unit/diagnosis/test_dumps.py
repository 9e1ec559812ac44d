"""A dump of msprobe stands for the subject: it is read as what it is, compared with the exact values, and never trusted
further than what it states. Records and names are those of real dumps of mindstudio-probe 26.2.0.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from harness.base.errors import InputError
from harness.base.records import write_json
from harness.certify.diagnose import export_taps
from harness.diagnosis.diagnosis import DUMPED, Diagnosis, Dumped, diagnose, record
from harness.diagnosis.dump_export import export, save_array
from harness.diagnosis.dumped_modules import OF_A_LAYER, OUTSIDE, ModuleRow, module_of, rows_of
from harness.diagnosis.dumps import Dump, Statistics, find_dump, read_dump, statistics_error, statistics_of
from harness.report.diagnosis import render_diagnosis
from harness.runs.files import GRADIENT
from harness.runs.places import places
from tests.support.examples import ROOT
from tests.support.tapped import CASE_OF_ALL, EXACT, Array, correct, three, write

PLACES = {place.name: place for place in places(CASE_OF_ALL.model, 1, 8)}
IN_NO_DUMP = ("rotary_emb.q", "rotary_emb.k", "softmax", "loss")
SUBJECT = correct("subject")
Edit = Callable[[dict[str, Any]], None]


def unread(path: Path) -> Array:
    raise AssertionError(f"{path} is not of PyTorch")


def in_dumps(name: str) -> bool:
    """Whether a tensor of a tapped run is in a dump of level L0."""
    way, _, at = name.partition(".")
    whole = not at.endswith(IN_NO_DUMP) and not (way == "backward" and at.endswith(("residual", "loss")))
    return way in ("forward", "backward", "gradient") and whole


def written(to: Path, tensors: Mapping[str, Array] = SUBJECT, edit: Edit | None = None) -> Path:
    place = export(tensors, to, "mindspore", save_array)
    if edit is not None:
        content = json.loads((place / "dump.json").read_text())
        edit(content)
        (place / "dump.json").write_text(json.dumps(content))
    return place


def statistics_alone(content: dict[str, Any]) -> None:
    """As the task `statistics` leaves it."""
    content |= {"task": "statistics", "dump_data_dir": None}
    for record_ in content["data"].values():
        for values in record_.values():
            for one in values if isinstance(values, list) else ():
                del one["data_name"]


def compared(tmp_path: Path, dump: Path) -> Diagnosis:
    """The diagnosis of a dump next to a finished reference and oracle."""
    out = tmp_path / "out"
    write(out, three())
    found = read_dump(find_dump(dump), CASE_OF_ALL, unread)
    file = out / "tensors" / "subject-taps.safetensors"
    file.unlink()
    if found.tensors:
        save_file(dict(found.tensors), file)
    dumped = Dumped(described=found.described, sha256=found.sha256, statistics=found.statistics, omitted=found.omitted)
    write_json(out / DUMPED, dumped)
    return diagnose(out)


# What msprobe wrote of one linear layer, and of a module that returns a record.
REAL: dict[str, Any] = {
    "task": "statistics",
    "level": "mix",
    "framework": "pytorch",
    "dump_data_dir": None,
    "data": {
        "Functional.linear.0.forward": {"input_args": [], "input_kwargs": {}, "output": []},
        "Module.module.model.layers.1.mlp.down_proj.Linear.forward.0": {
            "input_args": [
                {
                    "type": "torch.Tensor",
                    "dtype": "torch.float32",
                    "shape": [1, 8, 128],
                    "Max": 0.5,
                    "Min": -0.25,
                    "Mean": 0.125,
                    "Norm": 2.0,
                    "requires_grad": True,
                }
            ],
            "input_kwargs": {},
            "output": [
                {
                    "type": "torch.Tensor",
                    "dtype": "torch.float32",
                    "shape": [1, 8, 64],
                    "Max": 3.0,
                    "Min": -3.0,
                    "Mean": 0.0,
                    "Norm": 9.0,
                    "requires_grad": True,
                }
            ],
            "parameters": {"weight": {"type": "torch.Tensor", "shape": [64, 128], "Max": 1.0, "Min": 0.0}},
        },
        "Module.module.model.layers.1.mlp.down_proj.Linear.backward.0": {
            "input": [{"type": "torch.Tensor", "shape": [1, 8, 64], "Max": 1.0, "Min": 0.0, "Mean": 0.5, "Norm": 4.0}],
            "output": [
                {"type": "torch.Tensor", "shape": [1, 8, 128], "Max": 2.0, "Min": 0.0, "Mean": 0.5, "Norm": 5.0}
            ],
        },
        "Module.module.model.layers.1.mlp.down_proj.Linear.parameters_grad.0": {
            "weight": [
                {"type": "torch.Tensor", "shape": [64, 128], "Max": 7.0, "Min": -7.0, "Mean": 0.0, "Norm": 8.0}
            ]
        },
        "Module.module.model.layers.1.self_attn.Qwen3Attention.forward.0": {
            "input_args": [],
            "input_kwargs": {"attention_mask": {"shape": [1, 1, 8, 8], "Max": 0.0, "Min": -3e38, "Mean": -math.inf}},
            "output": [{"shape": [1, 8, 64], "Max": 1.5, "Min": -1.5, "Mean": 0.0, "Norm": 6.0}, None],
            "parameters": {},
        },
        "Module.module.model.layers.1.adapter.Linear.forward.0": {
            "input_args": [], "input_kwargs": {}, "output": [], "parameters": {"weight": {"shape": [2, 2]}},
        },
    },
}  # fmt: skip


def test_the_table_of_the_document_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "design" / "diagnosis.md").read_text()
    section = text[text.index("## Dumps of msprobe") : text.index("## Clues")]
    stated = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]

    def cell(row: ModuleRow, name: str | None, within: str) -> str:
        whole = f"{within}.{name}".strip(".") if name is not None else None
        return "–" if whole is None else f"{'input of ' * (row.taken == 'input')}`{whole}`"

    expected = [
        [
            f"`{f'{place}.{row.place}'.strip('.')}`",
            *(cell(row, name, within) for name in (row.hugging_face, row.mindformers)),
        ]
        for rows, place, within in ((OUTSIDE, "", ""), (OF_A_LAYER, "model.layers.N", "layers.N"))
        for row in rows
    ]
    assert sorted(stated) == sorted(expected)


def test_a_real_record_gives_the_places_of_its_modules(tmp_path: Path) -> None:
    place = tmp_path / "step0" / "proc7"
    place.mkdir(parents=True)
    (place / "dump.json").write_text(json.dumps(REAL))
    found = read_dump(find_dump(tmp_path), CASE_OF_ALL, unread)
    layer = "model.layers.1"
    norms = {name: one.norm for name, one in found.statistics.items()}
    assert norms == {
        f"forward.{layer}.mlp.act": 2.0,
        f"forward.{layer}.mlp.down_proj": 9.0,
        f"backward.{layer}.mlp.down_proj": 4.0,
        f"backward.{layer}.mlp.act": 5.0,
        f"{GRADIENT}{layer}.mlp.down_proj.weight": 8.0,
        f"forward.{layer}.self_attn": 6.0,
    }
    assert not found.tensors and found.omitted == ("module.model.layers.1.adapter",)
    assert found.described == "dump of pytorch by msprobe (statistics, mix)"


def test_every_place_that_a_module_has_is_in_a_dump_and_read_back(tmp_path: Path) -> None:
    found = read_dump(written(tmp_path), CASE_OF_ALL, unread)
    assert set(found.tensors) == {name for name in SUBJECT if in_dumps(name)} and not found.statistics
    assert all(np.array_equal(found.tensors[name], SUBJECT[name]) for name in found.tensors)


def test_a_module_and_its_places_have_one_row_each() -> None:
    for place in PLACES:
        if (named := module_of(place)) is not None:
            module, taken = named
            assert (place, taken) in list(rows_of(f"network.module.{module}"))
    assert [name for name in PLACES if module_of(name) is None] == [
        name for name in PLACES if name.endswith(IN_NO_DUMP)
    ]


@pytest.mark.parametrize("edit", [None, statistics_alone], ids=["tensors", "statistics"])
def test_a_correct_subject_differs_nowhere(tmp_path: Path, edit: Edit | None) -> None:
    diagnosis = compared(tmp_path, written(tmp_path / "dump", edit=edit))
    assert diagnosis.named is None and diagnosis.broken is None
    states = {check.name: check.state for check in diagnosis.checks}
    assert states == dict.fromkeys(("values", "gradients by place", "gradients of parameters"), "agrees")
    assert diagnosis.evidence == ("statistics" if edit else "tensors") and "subject" not in diagnosis.taps
    assert diagnosis.subject == f"dump of mindspore by msprobe ({'statistics' if edit else 'tensor'}, L0)"
    assert f"compared by its {diagnosis.evidence}" in render_diagnosis(diagnosis)


@pytest.mark.parametrize("edit", [None, statistics_alone], ids=["tensors", "statistics"])
@pytest.mark.parametrize("place", ["model.layers.1.self_attn.k_norm", "model.layers.0.mlp.act", "lm_head"])
def test_the_first_module_that_differs_is_named(tmp_path: Path, place: str, edit: Edit | None) -> None:
    order = list(PLACES)
    wrong = {
        f"forward.{name}": np.float32(1.01) * SUBJECT[f"forward.{name}"]
        for name in order[order.index(place) :]
        if name != "loss"
    }
    diagnosis = compared(tmp_path, written(tmp_path / "dump", {**SUBJECT, **wrong}, edit))
    assert diagnosis.named is not None and diagnosis.named.place == place
    assert record(diagnosis)["named"]["place"] == place


def test_a_module_that_a_dump_lacks_is_not_recorded_and_no_fault(tmp_path: Path) -> None:
    def without(content: dict[str, Any]) -> None:
        for name in [name for name in content["data"] if "q_proj" in name]:
            del content["data"][name]

    diagnosis = compared(tmp_path, written(tmp_path / "dump", edit=without))
    states = {reading.name: reading.state for reading in diagnosis.readings if reading.direction == "forward"}
    assert states["model.layers.0.self_attn.q_proj"] == "not recorded" and diagnosis.named is None


def of_mindformers(content: dict[str, Any]) -> None:
    """Its names, and the position before the row."""
    renamed = {
        "self_attn.o_proj": "self_attention.linear_proj", "self_attn.q_norm": "self_attention.q_layernorm",
        "self_attn.k_norm": "self_attention.k_layernorm", "self_attn": "self_attention",
        "post_attention_layernorm": "pre_mlp_layernorm", "mlp.down_proj": "mlp.linear_fc2",
        "model.norm": "model.decoder.final_layernorm", "lm_head": "model.output_layer",
        "model.embed_tokens": "model.embedding.word_embeddings", "model.layers": "network.model.decoder.layers",
    }  # fmt: skip
    found = {}
    for name, value in content["data"].items():
        if any(part in name for part in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "rotary_emb")):
            continue
        for old, new in renamed.items():
            name = name.replace(f".{old}.", f".{new}.")
        found[name] = value
    content["data"] = found


def test_mindformers_names_and_order_are_read(tmp_path: Path) -> None:
    turned = {
        name: np.ascontiguousarray(np.swapaxes(tensor, 0, 1))
        if not name.startswith(GRADIENT) and tensor.ndim > 2 and "embed" not in name and "rotary" not in name
        else tensor
        for name, tensor in SUBJECT.items()
    }
    diagnosis = compared(tmp_path, written(tmp_path / "dump", turned, of_mindformers))
    assert diagnosis.named is None
    read = [reading.name for reading in diagnosis.readings if reading.state == "agrees"]
    assert {"lm_head", "model.norm", "model.layers.1.mlp.act", "model.layers.1.self_attn.q_norm"} <= set(read)
    assert "model.layers.1.self_attn.q_proj" not in read


def test_micro_batches_are_rows_and_a_call_made_again_is_none(tmp_path: Path) -> None:
    halves = CASE_OF_ALL.with_changes(data={**CASE_OF_ALL.data.model_dump(), "global_batch_size": 2})
    name = "forward.model.norm"
    both = np.concatenate([SUBJECT[name], SUBJECT[name] + 1])
    place = tmp_path / "step0"
    for number, part in enumerate((both[:1], both[1:])):
        made = export({name: part}, tmp_path / str(number), "mindspore", save_array)
        content = json.loads((made / "dump.json").read_text())
        (key,) = content["data"]
        again = key.replace(".forward.0", f".forward.{number}")
        content["data"][key]["output"][0]["data_name"] = f"{again}.npy"
        (place / "dump_tensor_data").mkdir(parents=True, exist_ok=True)
        np.save(place / "dump_tensor_data" / f"{again}.npy", part)
        before = json.loads((place / "dump.json").read_text())["data"] if number else {}
        content["data"] = {**before, again: content["data"][key]}
        (place / "dump.json").write_text(json.dumps(content))
    assert np.array_equal(read_dump(place, halves, unread).tensors[name], both)
    assert np.array_equal(read_dump(place, CASE_OF_ALL, unread).tensors[name], both[:1])


def of_every_record(edit: Edit) -> Edit:
    """The same edit of what a dump has of every call with an output."""

    def edited(content: dict[str, Any]) -> None:
        for call in content["data"].values():
            if call.get("output"):
                edit(call)

    return edited


@pytest.mark.parametrize(
    "edit",
    [
        lambda record: record["output"][0].update(Max=10**400, data_name="no file"),
        lambda record: record["output"][0].update(Max=None, data_name="a" * 300),
        lambda record: record["output"][0].update(shape=[0], Max=0, Min=0, Mean=0, Norm=0, data_name=None),
        lambda record: record.update(output=functools.reduce(lambda inner, _: [inner], range(600), record["output"])),
    ],
)
def test_a_strange_record_is_read_as_far_as_it_goes(tmp_path: Path, edit: Edit) -> None:
    assert read_dump(written(tmp_path, edit=of_every_record(edit)), CASE_OF_ALL, unread)


def test_a_file_that_states_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    directory = written(tmp_path)
    for path in (directory / "dump_tensor_data").iterdir():
        np.save(path, np.zeros(3, np.float32))
        path.write_bytes(path.read_bytes().replace(b"(3,), }        ", b"(99999999999,)}"))
    with pytest.raises(InputError, match="cannot be read"):
        read_dump(directory, CASE_OF_ALL, unread)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda content: content.update(level="L1"), "has no modules: dump L0 or mix"),
        (lambda content: content.update(data={"Cell.conv1.Conv2d.forward.0": {}}), "names no module of Qwen3"),
        (lambda content: content.pop("data"), "is no dump of msprobe"),
        (of_every_record(lambda record: record.update(input_args=7)), "is no record of a module's call"),
        (of_every_record(lambda record: record.update(input_kwargs=[7])), "is no record of a module's call"),
        (of_every_record(lambda record: record["output"][0].update(shape="8")), "has a tensor of the shape 8"),
        (of_every_record(lambda record: record["output"][0].update(shape=[-1, 8])), "has a tensor of the shape"),
        (of_every_record(lambda record: record["output"][0].update(shape=[1.5])), "has a tensor of the shape"),
    ],
)
def test_what_is_no_dump_of_modules_is_refused(tmp_path: Path, edit: Edit, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_dump(written(tmp_path, edit=edit), CASE_OF_ALL, unread)


def test_a_directory_of_no_dump_or_of_several_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no dump\.json"):
        find_dump(tmp_path)
    for rank in ("rank0", "rank1"):
        (tmp_path / rank).mkdir()
        (tmp_path / rank / "dump.json").write_text("{")
    with pytest.raises(InputError, match="holds 2 dumps"):
        find_dump(tmp_path)
    with pytest.raises(InputError, match="is not JSON"):
        read_dump(find_dump(tmp_path / "rank1"), CASE_OF_ALL, unread)


def test_a_file_name_leads_nowhere_else(tmp_path: Path) -> None:
    """The name of a file is the dump's own word."""
    np.save(tmp_path / "secret.npy", np.ones(3))

    def elsewhere(content: dict[str, Any]) -> None:
        for value in content["data"].values():
            for one in value.get("output", ()):
                one["data_name"] = "../../../secret.npy"

    found = read_dump(written(tmp_path / "dump", edit=elsewhere), CASE_OF_ALL, unread)
    assert not any(value.shape == (3,) for value in found.tensors.values())


@given(st.integers(0, 2**31), st.floats(1e-7, 1e-2), st.integers(2, 500))
@settings(max_examples=40)
def test_the_error_of_statistics_is_never_more_than_a_few_times_that_of_the_tensor(
    seed: int, size: float, count: int
) -> None:
    random = np.random.RandomState(seed)
    exact = random.standard_normal(count)
    noise = random.standard_normal(count)
    found = exact + size * noise * np.linalg.norm(exact) / np.linalg.norm(noise)
    error = statistics_error(exact, statistics_of(found))
    assert error <= 5 * np.linalg.norm(found - exact) / np.linalg.norm(exact) * max(1.0, math.log(count))


@pytest.mark.parametrize("change", ["largest", "smallest", "mean", "norm"])
def test_an_error_in_any_statistic_is_one(change: str) -> None:
    exact = EXACT["forward.model.norm"]
    right = statistics_of(exact)
    assert statistics_error(exact, right) == 0.0
    wrong = Statistics(**{**vars(right), change: getattr(right, change) * 1.01 + 0.01})
    assert statistics_error(exact, wrong) > 1e-3
    assert math.isnan(statistics_error(exact, Statistics(**{**vars(right), change: math.nan})))
    assert math.isnan(statistics_error(exact, Statistics(**{**vars(right), "shape": (2, *right.shape)})))


def test_taps_are_exported_for_each_side_once(tmp_path: Path) -> None:
    write(tmp_path / "out", three())
    (tmp_path / "out" / "tensors" / "oracle-taps.safetensors").unlink()
    (tmp_path / "out" / "tensors" / "reference-taps.safetensors").unlink()
    (place,) = export_taps(tmp_path / "out", tmp_path / "dumps")
    found: Dump = read_dump(place, CASE_OF_ALL, unread)
    assert set(found.tensors) == {name for name in SUBJECT if in_dumps(name)}
    assert {path.name for path in place.iterdir()} == {
        "dump.json", "construct.json", "stack.json", "dump_tensor_data"
    }  # fmt: skip
    with pytest.raises(InputError, match="Choose another --export"):
        export_taps(tmp_path / "out", tmp_path / "dumps")


def test_numbers_of_calls_and_layers_have_no_thousands_of_digits(tmp_path: Path) -> None:
    nines = "9" * 5000

    def edit(content: dict[str, Any]) -> None:
        (first, *_) = content["data"].values()
        content["data"] |= {f"Cell.model.norm.RMSNorm.forward.{nines}": first}
        content["data"] |= {f"Cell.model.layers.{nines}.mlp.MLP.forward.0": first}

    found = read_dump(written(tmp_path / "dump", edit=edit), CASE_OF_ALL, unread)
    assert found.tensors.keys() == read_dump(written(tmp_path / "same"), CASE_OF_ALL, unread).tensors.keys()


def test_a_dump_that_states_a_module_twice_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_text('{"task": "tensor", "level": "L0", "data": {"a": {}, "a": {}}}')
    with pytest.raises(InputError, match="'a' is stated twice"):
        read_dump(tmp_path, CASE_OF_ALL, unread)
