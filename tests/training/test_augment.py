"""An augmentation is its string; the same seed gives the same image anywhere."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mskscreen.errors import ProtocolError
from mskscreen.training.augment import Augmentation

ALL = (
    "rotation(15)|scale(0.9,1.1)|translation(0.1)|flip(0.5)|contrast(0.2)|gamma(0.8,1.25)|noise(0.02)|polarity(0.5)"
    "|erasing(0.25)"
)
share = st.floats(0, 1)
factors = st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted)
STEPS = {
    "rotation": st.floats(0, 180).map(lambda v: (v,)),
    "scale": factors,
    "gamma": factors,
    **{
        name: share.map(lambda v: (v,))
        for name in ("translation", "flip", "contrast", "noise", "polarity", "erasing")
    },
}
written = st.permutations(list(STEPS)).flatmap(
    lambda names: st.integers(0, len(names)).flatmap(
        lambda count: st.tuples(
            *(
                STEPS[name].map(lambda v, n=name: f"{n}({','.join(f'{x:.12g}' for x in v)})")
                for name in names[:count]
            )
        )
    )
)


def image(seed: int = 0, rows: int = 32, columns: int = 24) -> torch.Tensor:
    return torch.rand(1, rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=50)
@given(written, st.integers(0, 2**62))
def test_any_string_is_printed_back_and_keeps_shape_range_and_source(steps, seed):
    text = "|".join(steps) or "none"
    augmentation = Augmentation.parse(text)
    assert str(augmentation) == text
    assert Augmentation.parse(str(augmentation)) == augmentation
    source = image()
    kept = source.clone()
    result = augmentation(source, seed)
    assert torch.equal(source, kept)
    assert result.shape == source.shape
    assert result.dtype == torch.float32
    assert 0 <= float(result.min()) <= float(result.max()) <= 1


def test_a_seed_is_an_image_and_the_global_state_is_left_alone():
    augmentation = Augmentation.parse(ALL)
    torch.manual_seed(1)
    first = augmentation(image(), 7)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(augmentation(image(), 7), first)
    assert not torch.equal(augmentation(image(), 8), first)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_used_augmentation_can_be_sent_to_another_process():
    augmentation = Augmentation.parse(ALL)
    expected = augmentation(image(), 7)
    assert torch.equal(pickle.loads(pickle.dumps(augmentation))(image(), 7), expected)


def test_no_augmentation_changes_nothing():
    assert torch.equal(Augmentation.parse("none")(image(), 3), image())


@pytest.mark.parametrize("step", ALL.split("|"))
def test_every_step_changes_most_images(step):
    augmentation = Augmentation.parse(step)
    changed = sum(not torch.equal(augmentation(image(), seed), image()) for seed in range(64))
    assert changed >= 8


def test_steps_do_what_their_names_say():
    source = image()
    assert torch.equal(Augmentation.parse("flip(1)")(source, 0), source.flip(-1))
    assert torch.allclose(Augmentation.parse("polarity(1)")(source, 0), 1 - source)
    assert torch.allclose(Augmentation.parse("gamma(2,2)")(source, 0), source**2)
    contrast = Augmentation.parse("contrast(0.5)")(source / 2 + 0.25, 0)
    assert float(contrast.mean()) == pytest.approx(float((source / 2 + 0.25).mean()), abs=1e-3)
    spread = [float((Augmentation.parse("noise(0.1)")(torch.full((1, 64, 64), 0.5), s)).std()) for s in range(20)]
    assert max(spread) <= 0.105
    assert min(spread) < 0.05 < max(spread)
    erased = Augmentation.parse("erasing(1)")(torch.ones(1, 64, 64), 0)
    assert 0 < float((erased == 0).float().mean()) < 0.5
    dot = torch.zeros(1, 65, 65)
    dot[0, 32, 32] = 1
    assert float(Augmentation.parse("rotation(180)")(dot, 5)[0, 32, 32]) > 0.9


def test_moves_share_one_interpolation():
    assert len(Augmentation.parse("rotation(9)|noise(0)|scale(1,1.1)|translation(0.1)|flip(1)")._changes) == 3


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("rotate(15)", "'rotate' is unknown; the nearest known one is 'rotation'"),
        ("rotation(15)|rotation(3)", "'rotation' is given twice"),
        ("rotation", "write 'rotation(degrees)'"),
        ("flip(2)", "from 0 to 1"),
        ("scale(1.1,0.9)", "smaller number first"),
        ("noise(nan)", "is not understood"),
        ("", "is unknown"),
        ("flip(0.5)|", "is unknown"),
        ("flip(0.5", "is unknown"),
        ("__import__('os')", "is unknown"),
    ],
)
def test_a_wrong_string_is_one_clear_error(text, named):
    with pytest.raises(ProtocolError) as error:
        Augmentation.parse(text)
    assert named in str(error.value)
