"""How the command ``search`` reads its command line; what is wrong with it is said in one sentence."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias

import typer

import layersearch
from layersearch.errors import BadInputError, RecipeError
from layersearch.primitives.registry import unknown_name

__all__ = ["Work", "app", "number", "options_given", "parse", "whole"]

Work: TypeAlias = Callable[[], int]
"""What a command has to do. It is done after parsing, so that the parser never sees its errors."""

app = typer.Typer(
    name="search",
    help="Searches for better neural-network layers and writes the winner as one plain PyTorch file.",
    epilog="Begin with: search evolve --space evonorm",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"layersearch {layersearch.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options before the command."""


def whole(option: str, text: str, most: int) -> int:
    """The number in ``text``, in [1, most]."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise RecipeError(f"{option} must be a whole number in [1, {most}], got {text!r:.40}; change it")
    return int(text)


def number(option: str, text: str, most: float) -> float:
    """The number in ``text``, in [0, most]."""
    if not re.fullmatch(r"[0-9]{0,9}\.?[0-9]{1,15}", text) or not float(text) <= most:
        raise RecipeError(f"{option} must be a number in [0, {most:g}], got {text!r:.40}; change it")
    return float(text)


_PARSER_ERROR: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)  # typer carries click inside, or not, depending on its version


def _sentence(error: Any) -> str:
    """What the option parser complains about, as rule, value and remedy."""
    message = " ".join(str(error.format_message()).rstrip(".").split())
    context = getattr(error, "ctx", None)
    command: Any = getattr(context, "command", None)
    help_of = f"see {getattr(context, 'command_path', 'search')} --help"
    match type(error).__name__:
        case "NoSuchOption":
            commands = getattr(getattr(context, "parent", None), "command", None)
            others = [
                f"search {name}"
                for name, other in getattr(commands, "commands", {}).items()
                if any(error.option_name in parameter.opts for parameter in other.params)
            ]
            if others:
                here = getattr(context, "command_path", "search")
                return (
                    f"{error.option_name} must be left out of {here}, it is an option of {', '.join(others)}; {help_of}"
                )
            names = sorted(name for parameter in command.params for name in parameter.opts if name.startswith("--"))
            return str(unknown_name("option", error.option_name, names))
        case "MissingParameter":
            parameter = error.param
            option = next((name for name in parameter.opts if name.startswith("-")), None)
            return f"{option or parameter.metavar} must be given, got nothing; {help_of}"
    names = list(getattr(command, "commands", ()))
    if message.startswith("Missing command"):
        return f"a command must be given ({', '.join(names)}), got none; {help_of}"
    unknown = re.match(r"No such command '(.*?)'", message)
    if unknown:
        return str(unknown_name("command", unknown[1], sorted(names)))
    return f"the command line must be as documented, but: {message[:1].lower()}{message[1:]}; {help_of}"


def options_given(arguments: Sequence[str]) -> dict[str, Any]:
    """What a command line that ``parse`` takes gives to its command, by name of the parameter, without defaults."""
    command, *rest = arguments
    commands: Any = typer.main.get_command(app)
    context = commands.commands[command].make_context(f"search {command}", rest)
    source = context.get_parameter_source
    return {name: value for name, value in context.params.items() if source(name).name == "COMMANDLINE"}


def parse(arguments: Sequence[str]) -> Any:
    """The work that a command line asks for. Raises: BadInputError if it cannot be parsed."""
    command = typer.main.get_command(app)
    try:
        return command.main(args=list(arguments), prog_name="search", standalone_mode=False)
    except _PARSER_ERROR as error:
        raise BadInputError(_sentence(error)) from None
