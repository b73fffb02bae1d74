"""Finds the commands, snippets and links in the hand-written documents."""

import re
import shlex
from pathlib import Path

from conftest import ROOT

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")),
    *(ROOT / "docs" / f"{name}.md" for name in ("METHOD", "TRAINING", "INFERENCE", "ONNX", "INSTALL")),
]
PROGRAMS = ("python", "accelerate", "pip", "pip-audit", "make", "hf", "pre-commit")


def read_blocks(text: str, language: str) -> list[str]:
    """The content of the code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def read_commands(path: Path) -> list[list[str]]:
    """The words of every command of a document, in its bash blocks and between backticks."""
    text = path.read_text(encoding="utf-8")
    lines = [line for block in read_blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    lines += [code for code in inline if " " in code and code.split()[0] in PROGRAMS and is_whole(code)]
    return [name_script(command) for line in lines for command in split_line(line)]


def is_whole(code: str) -> bool:
    """Whether the prose gives a whole command and not only its beginning, such as `accelerate launch`."""
    return ".py" in code or " -m " in code or code.split()[0] not in ("python", "accelerate")


def split_line(line: str) -> list[list[str]]:
    """The words of each command of a line: what `&&` and `|` separate, without comments."""
    commands: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word in ("&&", "|"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def name_script(command: list[str]) -> list[str]:
    """The command with a module of this project, `python -m a.b`, as its script, `python a/b.py`."""
    if command[:2] == ["python", "-m"]:
        script = command[2].replace(".", "/") + ".py"
        if (ROOT / script).is_file():
            return ["python", script, *command[3:]]
    return command


def read_links(path: Path) -> list[str]:
    """The targets of the document's links and pictures that are files of this project."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.partition("#")[0] for target in targets if not target.startswith(("http", "#"))]
