"""Draws belong to their names alone: not to the process, the order, or one another."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from pasture.core.seeds import Key, derived_seed, stream, uniform

NAMES: list[tuple[int, *tuple[Key, ...]]] = [
    (0, "label-flips"),
    (0, "label-flips", "c-17"),
    (1, "label-flips"),
    (2**40, "naïve 🐑", 3, -0.5),
]

PRINT_DRAWS = """
import json
from pasture.core.seeds import derived_seed, stream, uniform
names = json.loads(input())
print(json.dumps([[derived_seed(*n), uniform(*n), stream(*n).random(3).tolist()] for n in names]))
"""


def digest_by_hand(text: str) -> list[int]:
    return list(hashlib.sha256(text.encode("ascii")).digest())


def big_endian(values: list[int]) -> int:
    number = 0
    for value in values:
        number = 256 * number + value
    return number


@pytest.mark.parametrize(
    ("names", "text"),
    # The JSON list of the seed and the names, spelled out by hand, everything but ASCII escaped.
    list(
        zip(
            NAMES,
            [
                '[0, "label-flips"]',
                '[0, "label-flips", "c-17"]',
                '[1, "label-flips"]',
                '[1099511627776, "na\\u00efve \\ud83d\\udc11", 3, -0.5]',
            ],
            strict=True,
        )
    ),
)
def test_draws_are_those_of_the_published_hash(names: tuple[int, *tuple[Key, ...]], text: str) -> None:
    digest = digest_by_hand(text)
    assert derived_seed(*names) == big_endian(digest[:8]) // 2
    assert uniform(*names) == (big_endian(digest[:8]) // 2**11) * 2.0**-53
    expected = np.random.Generator(np.random.PCG64(big_endian(digest[:16])))
    assert stream(*names).integers(0, 2**62, 5).tolist() == expected.integers(0, 2**62, 5).tolist()


def test_draws_are_these_numbers_for_ever() -> None:
    # Written down once: a change of them changes every result that was ever published.
    assert derived_seed(0, "label-flips") == 2_071_991_448_230_829_818
    assert uniform(0, "label-flips") == 0.22464576295432515
    assert stream(0, "label-flips").integers(0, 1000, 5).tolist() == [242, 756, 566, 823, 540]


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_draws_are_the_same_in_every_process(hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", PRINT_DRAWS]
    done = subprocess.run(command, input=json.dumps(NAMES), env=environment, capture_output=True, text=True, check=True)
    here = [[derived_seed(*n), uniform(*n), stream(*n).random(3).tolist()] for n in NAMES]
    assert json.loads(done.stdout) == here


def test_streams_do_not_touch_one_another_or_the_global_state() -> None:
    before = repr(np.random.get_state())
    alone = stream(0, "a").random(4).tolist()
    other, again = stream(0, "b"), stream(0, "a")
    mixed = []
    for _ in range(4):
        other.random()
        mixed.append(again.random())
    assert mixed == alone
    assert repr(np.random.get_state()) == before


def test_every_part_of_a_name_counts() -> None:
    names: list[tuple[int, *tuple[Key, ...]]] = [
        (0, "a"),
        (1, "a"),
        (0, "b"),
        (0, "a", "b"),
        (0, "b", "a"),
        (0, "ab"),
        (0, "a", 1),
        (0, "a", "1"),
        (0,),
    ]
    assert len({derived_seed(*name) for name in names}) == len(names)


def test_uniform_draws_are_uniform_and_fill_no_lattice() -> None:
    draws = np.array([uniform(0, "item", number) for number in range(20_000)])
    assert ((draws >= 0) & (draws < 1)).all()
    # scipy's tests are the yardstick; with a fixed seed the p-values are fixed too.
    assert stats.kstest(draws, "uniform").pvalue > 0.01
    assert abs(stats.pearsonr(draws[:-1], draws[1:]).statistic) < 0.02


def test_streams_of_different_names_are_uncorrelated() -> None:
    rows = np.stack([stream(0, "name", number).standard_normal(2_000) for number in range(20)])
    correlations = np.asarray(np.corrcoef(rows))[np.triu_indices(20, 1)]
    # 190 correlations of independent normals, standard deviation 1/sqrt(2000): five of them are never passed.
    assert np.abs(correlations).max() < 5 / np.sqrt(2_000)


def test_derived_seeds_fit_what_libraries_take() -> None:
    seeds = [derived_seed(0, "range", number) for number in range(2_000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62
