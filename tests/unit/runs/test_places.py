"""The places of a step: one order, every parameter, shapes that follow from the configuration."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from harness.runs.places import LOSS, places
from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes
from qwen3_model.sizes import SMALL

CONFIGS = st.builds(
    lambda size, layers, tied: dataclasses.replace(SMALL[size], num_hidden_layers=layers, tie_word_embeddings=tied),
    st.sampled_from(sorted(SMALL)),
    st.integers(1, 12),
    st.booleans(),
)


@given(CONFIGS)
def test_a_place_comes_after_its_inputs(config: Qwen3Config) -> None:
    seen: set[str] = set()
    for place in places(config, 2, 8):
        assert place.name not in seen
        assert set(place.inputs) <= seen
        seen.add(place.name)


@given(CONFIGS)
def test_every_parameter_belongs_to_exactly_one_place(config: Qwen3Config) -> None:
    owned = [place.parameter for place in places(config, 2, 8) if place.parameter is not None]
    assert sorted(owned) == sorted(name for name, _ in parameter_shapes(config))


@given(CONFIGS)
def test_every_axis_has_a_name_and_every_value_except_the_loss_is_used(config: Qwen3Config) -> None:
    found = places(config, 2, 8)
    used = {name for place in found for name in place.inputs}
    assert {place.name for place in found} - used == {LOSS}
    assert all(len(place.axes) == len(place.shape) for place in found)


def test_the_order_of_a_layer() -> None:
    names = [place.name for place in places(SMALL["tiny"], 2, 8)]
    layer = "model.layers.0"
    own = [name.removeprefix(f"{layer}.") for name in names if name.startswith(layer)]
    assert own == [
        "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_norm",
        "self_attn.k_norm", "self_attn.rotary_emb.q", "self_attn.rotary_emb.k", "self_attn.softmax", "self_attn.mix",
        "self_attn.o_proj", "self_attn", "residual", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj",
        "mlp.act", "mlp.down_proj", "mlp", layer,
    ]  # fmt: skip
    assert names[0] == "model.embed_tokens"
    assert names[-3:] == ["model.norm", "lm_head", "loss"]
