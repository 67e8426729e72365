"""What is wrapped inside jsonargparse: still there, still as it was, and for one thread alone."""

import hashlib
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pytest
from jsonargparse import ArgumentParser, _typehints, _util

from aevb.cli import jsonargparse_hooks as hooks
from aevb.inference import ELBO, IWAE, Objective

# Of the functions that are wrapped and of those that call them, as they are in 4.53.
DIGESTS: dict[str, tuple[Callable[..., Any], str]] = {
    "check_import_path": (hooks._check_import_path, "579eb0534a2120d1"),
    "import_object": (_util.import_object, "c87676ed83733945"),
    "discard_init_args": (hooks._discard_init_args, "4c186b359340d35b"),
    "adapt_class_type": (_typehints.adapt_class_type, "79e4e3b014c9b028"),
    "merge_config": (_util.merge_config, "d7c4bb3e0879b10c"),
}


def particles() -> int:
    """How many another program's parser makes of the name of a class: IWAE has 5, ELBO 1."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--bound", type=Objective, default=ELBO())
    bound: IWAE = parser.instantiate(parser.parse_args(["--bound", "aevb.inference.IWAE"])).bound
    return bound.num_particles


@pytest.mark.parametrize("name", list(DIGESTS))
def test_lines_that_are_relied_on_are_those_of_the_version_written_for(name: str) -> None:
    function, digest = DIGESTS[name]
    found = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    assert found == digest, "jsonargparse changed: read jsonargparse_hooks.py beside it"


def test_classes_begin_with_their_own_defaults_within_the_context_alone() -> None:
    before = particles()
    with hooks.hooked(), ThreadPoolExecutor(1) as pool:
        assert particles() == 5
        assert pool.submit(particles).result() == before == 1
    assert particles() == 1


def test_imports_are_checked_within_the_context_alone() -> None:
    def refuse(path: str) -> NoReturn:
        raise ValueError(f"refused {path}")

    with hooks.hooked(refuse), ThreadPoolExecutor(1) as pool:
        with pytest.raises(Exception, match="refused aevb"):
            particles()
        assert pool.submit(particles).result() == 1
    assert particles() == 1


def test_another_function_in_the_place_is_refused() -> None:
    with pytest.raises(ImportError, match=r"has no .*check_import_path\(other\)"):
        hooks._wrapped(_util, "check_import_path", lambda other: None)
    with pytest.raises(ImportError, match="4.53"):
        hooks._wrapped(_util, "no_such_function", hooks._import)
