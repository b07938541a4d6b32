"""Mutated safetensors files against the `safetensors` package: nothing is accepted that it refuses, what both accept is
read alike, and every refusal of ours alone falls under a rule that cpp/io/containers/safetensors.h lists.

LAMELLA_MUTATIONS sets the number of files (20,000 unless told; 1,000,000 in the full stage), LAMELLA_SEED the seed.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lamella
import safetensors
from lamella import _core

FULL = os.environ.get("LAMELLA_STAGE") == "full"
COUNT = int(os.environ.get("LAMELLA_MUTATIONS", "1000000" if FULL else "20000"))
SEED = int(os.environ.get("LAMELLA_SEED", "20261121"))
RULES = Path(__file__).resolve().parents[2] / "cpp" / "io" / "containers" / "safetensors.h"

Tokens = list[bytes]
Mutation = Callable[[random.Random, Tokens], None]

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1}
SIZES |= {"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
FOREIGN = {"F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"}
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|[a-z]+|[\[\]{}:,]|\s+')
NUMBERS = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    16,
    255,
    2**31,
    2**32,
    2**48,
    2**48 + 1,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
]
NUMBER_TEXTS = [str(n).encode() for n in NUMBERS]
NUMBER_TEXTS += b"-1 -0 0.0 1.0 4.5 1e0 4E0 1e999 -1e999 1e-999 01 00 +1 1. .5 1e 0x4 NaN Infinity null true".split()
STRINGS = [b'""', b'"a"', b'"b"', b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"x"', b'"\\u0000"']
STRINGS += [
    b'"\\u0061"',
    b'"dtyp\\u0065"',
    b'"__metadata\\u005f_"',
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\ud83d\\ude00"',
]
STRINGS += [
    b'"\xc3\xa9"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\\x"',
    b'"\t"',
    b'"\x7f"',
    b'"' + b"n" * 1024 + b'"',
    b'"' + b"n" * 1025 + b'"',
]
STRINGS += [b'"' + name.encode() + b'"' for name in [*SIZES, *FOREIGN, "f32", "F33"]]
VALUES = [*NUMBER_TEXTS, *STRINGS, b"[]", b"{}", b"[1]", b"[0,4]", b'{"a":"b"}', b'{"F32":null}', b"false"]
VALUES += [b"[" * depth + b"]" * depth for depth in (61, 62, 63, 64, 65, 125, 126, 127, 128)]
SPACES = [b" ", b"\n", b"\t", b"\r", b"\x0b", b"\0", b"\xef\xbb\xbf", b"\xc2\xa0"]


def sound_file(rng: random.Random) -> tuple[bytes, int]:
    """The header of a random file that the package accepts, and the size of its data."""
    header: dict[str, object] = {}
    if rng.random() < 0.3:
        header["__metadata__"] = {
            rng.choice(["format", "x", ""]): rng.choice(["pt", "", "\u00e9"]) for _ in range(rng.randrange(3))
        }
    at = 0
    for i in range(rng.randrange(4)):
        dtype = rng.choice(list(SIZES))
        shape = [rng.choice([0, 1, 1, 2, 3, 4]) for _ in range(rng.randrange(4))]
        end = at + SIZES[dtype] * math.prod(shape)
        header["abc"[i]] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    names = list(header)
    rng.shuffle(names)
    return json.dumps({name: header[name] for name in names}, separators=(",", ":")).encode(), at


def positions(tokens: Tokens, first_bytes: bytes) -> list[int]:
    return [i for i, token in enumerate(tokens) if token[:1] and token[0] in first_bytes]


def change_number(rng: random.Random, tokens: Tokens) -> None:
    if places := positions(tokens, b"0123456789-"):
        at = rng.choice(places)
        if rng.random() < 0.5 and tokens[at].isdigit():
            tokens[at] = str(max(0, int(tokens[at]) + rng.choice([-8, -4, -2, -1, 1, 2, 4, 8]))).encode()
        else:
            tokens[at] = rng.choice(NUMBER_TEXTS)


def change_string(rng: random.Random, tokens: Tokens) -> None:
    if places := positions(tokens, b'"'):
        tokens[rng.choice(places)] = rng.choice(STRINGS)


def change_value(rng: random.Random, tokens: Tokens) -> None:
    if tokens:
        tokens[rng.randrange(len(tokens))] = rng.choice(VALUES)


def remove_token(rng: random.Random, tokens: Tokens) -> None:
    if tokens:
        del tokens[rng.randrange(len(tokens))]


def repeat_token(rng: random.Random, tokens: Tokens) -> None:
    if tokens:
        at = rng.randrange(len(tokens))
        tokens.insert(at, tokens[at])


def swap_tokens(rng: random.Random, tokens: Tokens) -> None:
    if tokens:
        a, b = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        tokens[a], tokens[b] = tokens[b], tokens[a]


def insert_space(rng: random.Random, tokens: Tokens) -> None:
    tokens.insert(rng.choice([0, len(tokens), rng.randrange(len(tokens) + 1)]), rng.choice(SPACES))


def insert_member(rng: random.Random, tokens: Tokens) -> None:
    """A further key, known or not, at the head of a random object."""
    if places := positions(tokens, b"{"):
        at = rng.choice(places) + 1
        comma = [] if tokens[at : at + 1] == [b"}"] else [b","]
        tokens[at:at] = [rng.choice(STRINGS), b":", rng.choice(VALUES), *comma]


def append_dimension(rng: random.Random, tokens: Tokens) -> None:
    """Dimensions of 1 or 0 or large ones, which often leave the size right."""
    if b'"shape"' in tokens:
        at = tokens.index(b'"shape"') + 3
        comma = [] if tokens[at : at + 1] == [b"]"] else [b","]
        dims = [
            rng.choice([b"1", b"1", b"1", b"0", b"%d" % 2**48, b"%d" % 2**62]) for _ in range(rng.choice([1, 1, 2, 8]))
        ]
        tokens[at:at] = [b",".join(dims), *comma]


def use_array_form(rng: random.Random, tokens: Tokens) -> None:
    """{"dtype":X,"shape":Y,"data_offsets":Z} as [X,Y,Z], which the package takes."""
    text = b"".join(tokens)
    found = list(re.finditer(rb'\{"dtype":("[A-Z0-9_]*"),"shape":(\[[0-9,]*\]),"data_offsets":(\[[0-9,]*\])\}', text))
    if found:
        match = rng.choice(found)
        tokens[:] = TOKEN.findall(text[: match.start()] + b"[%b,%b,%b]" % match.groups() + text[match.end() :])


def repeat_member(rng: random.Random, tokens: Tokens) -> None:
    """One tensor described twice; the package keeps the last."""
    text = b"".join(tokens)
    found = list(re.finditer(rb'"[^"]*":\{[^{}]*\},?', text))
    if found:
        member = rng.choice(found).group().rstrip(b",")
        tokens[:] = [b"{", *TOKEN.findall(member), b",", *TOKEN.findall(text)[1:]]


def change_bytes(rng: random.Random, tokens: Tokens) -> None:
    text = bytearray(b"".join(tokens))
    for _ in range(rng.randrange(1, 4)):
        if not text:
            break
        at, kind = rng.randrange(len(text)), rng.randrange(3)
        if kind == 0:
            text[at] = rng.randrange(256)
        elif kind == 1:
            text.insert(at, rng.choice(b'{}[]:,"\\0123456789.eE- \t\n\x00\xff'))
        else:
            del text[at]
    tokens[:] = [bytes(text)]  # later mutations see one token


MUTATIONS: list[Mutation] = [change_number, change_number, change_number, change_string, change_string, change_value]
MUTATIONS += [remove_token, repeat_token, swap_tokens, insert_space, insert_member, append_dimension, append_dimension]
MUTATIONS += [use_array_form, repeat_member, change_bytes]


def mutated_file(rng: random.Random, header: bytes, data_bytes: int) -> bytes:
    tokens = TOKEN.findall(header)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        rng.choice(MUTATIONS)(rng, tokens)
    text = b"".join(tokens)
    length = len(text)
    if rng.random() < 0.05:
        length = rng.choice(
            [0, 1, length - 1, length + 1, length + data_bytes, 10**8, 10**8 + 1, 2**32, 2**63, 2**64 - 1]
        )
    if rng.random() < 0.1:
        data_bytes = max(0, data_bytes + rng.choice([-4, -1, 1, 4, 8]))
    file = struct.pack("<Q", max(0, length)) + text + bytes(data_bytes)
    return file[: rng.randrange(len(file))] if rng.random() < 0.02 else file


# ---- the rules, told a second time, in Python ----------------------------------------------------


class Members(list[tuple[str, object]]):
    """An object as its key-value pairs, repeated keys and all."""


def broken_rules(file: bytes) -> set[str]:
    """The tags of the rules that the header breaks; a header that the package accepts is JSON at least."""
    text = file[8 : 8 + struct.unpack("<Q", file[:8])[0]]
    broken: set[str] = set() if text[:1] == b"{" else {"S1"}

    def whole(digits: str) -> int:
        value = int(digits)
        if not -(2**63) <= value < 2**64:
            broken.add("J4")
        return value

    def fractional(digits: str) -> float:
        value = float(digits)
        if math.isinf(value) or (value == 0 and re.search("[1-9]", digits.lower().partition("e")[0])):
            broken.add("J4")
        return value

    root = json.loads(text, object_pairs_hook=Members, parse_int=whole, parse_float=fractional)

    def walk(value: object, depth: int) -> None:
        if isinstance(value, list):
            if depth > 64:
                broken.add("J1")
            if isinstance(value, Members):
                keys = [key for key, _ in value]
                if len(set(keys)) < len(keys):
                    broken.add("J2")
                for pair in value:
                    walk(pair[0], depth + 1)
                    walk(pair[1], depth + 1)
            else:
                for element in value:
                    walk(element, depth + 1)

    walk(root, 1)
    for name, description in root if isinstance(root, Members) else []:
        if name == "__metadata__":
            strings = isinstance(description, Members) and all(isinstance(text, str) for _, text in description)
            if not strings:
                broken.add("S6")
            continue
        if not 1 <= len(name.encode(errors="surrogatepass")) <= 1024 or "\0" in name:
            broken.add("S2")
        fields = dict(description) if isinstance(description, Members) else {}
        if set(fields) != {"dtype", "shape", "data_offsets"} or not isinstance(fields["dtype"], str):
            broken.add("S3")
            continue
        shape = fields["shape"]
        assert isinstance(shape, list)
        if len(shape) > 8:
            broken.add("S4")
        if any(dim > 2**48 for dim in shape) or math.prod(dim for dim in shape if dim) >= 2**63:
            broken.add("S5")
        if fields["dtype"] in FOREIGN:
            broken.add("S8")
    return broken


def check_file(file: bytes) -> str:
    """Compares both readers on one file; the answer is what happened, for the count."""
    try:
        theirs = safetensors.deserialize(file)
    except safetensors.SafetensorError:
        theirs = None
    try:
        ours = _core.parse_safetensors_header(file, len(file))
    except lamella.CheckpointError as error:
        if theirs is None:
            return "both refuse"
        tag = re.search(r"\[([SJ]\d)\]$", str(error))
        assert tag is not None, f"refused alone and without a rule: {error}"
        assert tag[1] in broken_rules(file), f"not the rule that is broken: {error}"
        assert (error.code == "UNSUPPORTED_MODEL") == (tag[1] == "S8")
        return tag[1]
    assert theirs is not None, "accepted alone"
    assert len(theirs) == len(ours)
    for name, found in theirs:
        dtype, shape, _, offset, size = ours.entry(name)
        assert (dtype, list(shape)) == (found["dtype"], found["shape"])
        assert file[offset : offset + size] == found["data"]
    return "both accept"


def test_nothing_is_accepted_that_the_package_refuses() -> None:
    rng = random.Random(SEED)
    bases = [sound_file(rng) for _ in range(500)]
    outcomes: Counter[str] = Counter()
    for number in range(COUNT):
        header, data_bytes = bases[rng.randrange(len(bases))]
        file = mutated_file(rng, header, data_bytes)
        try:
            outcomes[check_file(file)] += 1
        except BaseException as problem:
            problem.add_note(f"seed {SEED}, mutation {number}, file {file[:400]!r}")
            raise
    print(f"\n{COUNT} mutated files, seed {SEED}: {dict(sorted(outcomes.items()))}")
    assert outcomes["both accept"] > COUNT // 50, "most mutations should not be hopeless"
    assert outcomes["both refuse"] > COUNT // 50


def test_every_rule_is_listed_and_met() -> None:
    """For each rule a file that the package accepts and we do not, so that no rule hides behind another."""
    one = b'{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    extra = one.replace(b'"shape"', b'"x":%b,"shape"')
    many = b'{"__metadata__":{%b}}' % b",".join(b'"%d":""' % i for i in range(4097))
    million = b"{%b}" % b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(1_000_001))
    alone = [
        ("S1", b" " + one, 4),
        ("S2", one.replace(b'"t"', b'""'), 4),
        ("S3", extra % b"1", 4),
        ("S4", one.replace(b"[1]", b"[1,1,1,1,1,1,1,1,1]"), 4),
        ("S5", one.replace(b"[1]", b"[0,%d]" % 2**49).replace(b"[0,4]", b"[0,0]"), 0),
        ("S6", b'{"__metadata__":null}', 0),
        ("S6", many, 0),
        ("S7", million, 0),
        ("S8", one.replace(b"F32", b"C64").replace(b"[0,4]", b"[0,8]"), 8),
        ("J1", extra % (b"[" * 100 + b"]" * 100), 4),
        ("J2", b"{" + one[1:-1] + b"," + one[1:], 4),
        ("J4", extra % b"18446744073709551616", 4),
    ]
    for rule, header, data_bytes in alone:
        file = struct.pack("<Q", len(header)) + header + bytes(data_bytes)
        safetensors.deserialize(file)
        try:
            _core.parse_safetensors_header(file, len(file))
        except lamella.CheckpointError as error:
            assert str(error).endswith(f"[{rule}]"), f"{rule}: {error}"
        else:
            raise AssertionError(f"{rule} is not enforced")
    listed = set(re.findall(r"^///   ([SJ]\d)  ", RULES.read_text(), re.M))
    assert listed == {rule for rule, _, _ in alone}
