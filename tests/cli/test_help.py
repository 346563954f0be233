"""What the command line says of itself."""

import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from mskscreen.cli.main import app

GROUPS = ["data", "explain", "model", "phantom", "review", "search"]


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone_prints_its_verbs(group: str) -> None:
    said = " ".join(CliRunner().invoke(app, [group]).output.split())
    for verb in get_command(app).commands[group].commands:
        assert f"│ {verb} " in said


@pytest.mark.parametrize(("group", "verb"), [("explain", "files"), ("search", "run")])
def test_a_group_says_which_verb_may_be_left_out(group: str, verb: str) -> None:
    said = " ".join(re.sub("[│╭╮╰╯─]", " ", CliRunner().invoke(app, [group, "--help"]).output).split())
    assert f"is short for {group} {verb}, whose --help tells all options" in said
