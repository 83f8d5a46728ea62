"""When what was read is proved to be what was saved."""

from __future__ import annotations

import hashlib
import os

import pytest

from outgrow.media.proof import SMALL, SUMMED, Proof


def proof_of(content: bytes) -> Proof:
    return Proof(len(content), (hashlib.sha256(content).hexdigest(),))


def feed(proof: Proof, content: bytes, start: int = 0, end: int | None = None) -> None:
    for offset in range(start, len(content) if end is None else end, 100_000):
        proof.add(offset, content[offset : min(offset + 100_000, end or len(content))])


@pytest.mark.parametrize("size", [0, 1, SMALL, SMALL + 1, 1_000_000])
def test_what_was_saved_is_not_refuted_and_anything_else_is(size):
    content = os.urandom(size)
    right, wrong = proof_of(content), Proof(size, ("0" * 64,))
    for proof in (right, wrong):
        feed(proof, content)
    assert not right.refuted
    assert wrong.refuted
    assert right.is_small is (size <= SMALL)


def test_a_part_refutes_nothing():
    proof = Proof(1_000_000, ("0" * 64,))
    feed(proof, bytes(1_000_000), end=999_999)
    assert not proof.refuted
    proof.add(999_999, b"\0")
    assert proof.refuted


def test_what_is_read_again_is_summed_once():
    content = os.urandom(700_000)
    proof = proof_of(content)
    feed(proof, content, end=500_000)
    proof.add(100_000, content[100_000:200_000])
    proof.add(450_000, content[450_000:])
    assert proof.summed == 700_000
    assert not proof.refuted


def test_what_is_left_out_is_never_summed():
    proof = proof_of(bytes(700_000))
    proof.add(100_000, bytes(600_000))
    assert proof.summed == 0
    assert proof.resume(650_000) is None


def test_of_a_large_file_the_beginning_is_summed_and_all_of_it_after_a_break():
    content = bytes(SUMMED + 1)
    proof = proof_of(content)
    feed(proof, content, end=2_000_000)
    assert SMALL <= proof.summed < 2 * SMALL
    again = proof.resume(2_000_000)
    assert again is not None
    feed(again, content, again.summed)
    assert again.summed == len(content)
    assert not again.refuted
    # The first one is as it was: the server that was tried may have failed.
    assert proof.summed < 2 * SMALL


def test_a_beginning_of_another_file_is_refuted_after_a_break():
    content = bytes(SUMMED + 1)
    proof = proof_of(content)
    proof.add(0, b"\1" * 2_000_000)
    again = proof.resume(2_000_000)
    assert again is not None
    feed(again, content, again.summed)
    assert again.refuted
