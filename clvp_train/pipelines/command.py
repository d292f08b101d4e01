"""What all commands share around their `@hydra.main`: a user's error becomes one line and exit status 2.

Only what is known to be the user's or the machine's becomes one line: `UserError`, the errors of Hydra and OmegaConf about the
config, and a disk that is full or cannot be written to. Any other exception keeps its traceback, because it may come from the
user's own class. A signal ends a command in one line too. Nothing here imports torch, so that `--help`, `--cfg job` and shell
completion stay fast.
"""

import ctypes
import difflib
import functools
import inspect
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.errors import CompactHydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clvp_train.errors import Stopped, UserError, deferring, stopping, user_error
from clvp_train.io import CONF, disk_error
from clvp_train.io.output import tolerate_output
from clvp_train.io.slurm import announcing_failure
from clvp_train.pipelines import config, paths, resolvers  # noqa: F401  every config uses the resolvers

USER_ERROR = 2  # exit status
AGAIN = "Run the same command again"  # what continues most commands
PARENT = "CLVP_TRAIN_PARENT"  # process id of the command that has started this rank, see `launch`
PR_SET_PDEATHSIG = 1  # prctl(2)


def report_errors(main: Callable[..., Any]) -> Callable[..., Any]:
    """Reports the user's errors of a command as this module describes.

    Used twice: above `@hydra.main` for errors of composition, and below it, where Hydra would print another line first. The
    first also quotes paths on the command line, the second expands them in the config, see `paths`.
    """

    @functools.wraps(main)
    def wrapped(*args: Any) -> Any:
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # makes Hydra raise its errors instead of printing them
        logging.raiseExceptions = False  # a log file on a full disk would print a traceback for every line
        try:
            with advising(lambda: AGAIN, args[0] if args else None):
                if args:
                    paths.expand_paths(args[0])
                    with announcing_failure(_shared_folder(args[0])):
                        return main(*args)
                end_with_parent()  # before the imports, which take seconds
                tolerate_output()
                sys.argv[1:] = paths.quote_paths(sys.argv[1:])
                return main()
        except Stopped as stopped:
            _print_once(stopped.message)
            sys.exit(stopped.code)
        except (UserError, OmegaConfBaseException, CompactHydraException) as error:
            message = _user_message(error, main)
            if message is None:
                raise
        finally:
            if Stopped.is_exiting:
                with suppress(ValueError):  # outside of the main thread
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # see `errors.stopping`
        _fail(message)

    return wrapped


def _shared_folder(cfg: DictConfig) -> Path | None:
    """The folder of codes, in which ranks wait for each other's files; None if it is remote or there is none."""
    folder = OmegaConf.select(cfg, "paths.codes")
    return Path(folder).absolute() if folder and "://" not in folder else None


def end_with_parent() -> None:
    """Makes the system kill this process when its parent ends, if it is a rank: a rank that waits for the files of others would
    outlive a killed parent. Does nothing where there is no prctl."""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(os.environ.get(PARENT, os.getppid())):  # killed while this rank was starting
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def advising(hint: Callable[[], str], cfg: DictConfig | None = None) -> Iterator[None]:
    """Ends a command in one line after a signal, when the disk is full or cannot be written to, and when the run folder has
    vanished.

    Args:
        hint: returns what the user can do next, as a sentence.
        cfg: of the run.

    Raises:
        Stopped: a signal has arrived.
        UserError: a file cannot be written.
    """
    try:
        with stopping(hint):
            yield
    except UserError:
        raise
    except Exception as error:
        output = OmegaConf.select(cfg, "paths.output") if cfg is not None else None
        message = disk_error(error, Path(output).absolute() if output else None)
        if message is None:
            raise
        raise UserError(f"{message}. Finished files are kept. {hint()}.") from error


@contextmanager
def importing() -> Iterator[None]:
    """Reports a library that cannot be imported, such as a torchaudio built for another torch, in one line. A signal waits for
    the end of the imports: libraries catch exceptions there, and are not imported a second time."""
    try:
        with deferring():
            yield
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        _fail(f"a library cannot be imported ({reason}). Run python -m clvp_train.doctor to find out which.")


def is_first_to_fail() -> bool:
    """False if another rank of this node has reported an error already: a user's error occurs on all ranks."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # torchrun's, in a folder of this rank below one of all ranks
    if not file:
        return True
    try:
        Path(file).parents[1].joinpath("reported").touch(exist_ok=False)
    except FileExistsError:
        return False
    except FileNotFoundError:
        pass  # the launcher is gone
    return True


def _user_message(error: Exception, main: Callable[..., Any]) -> str | None:
    """The one line for an error; None if it is not known to be the user's."""
    if (found := user_error(error)) is not None:
        return str(found)
    if isinstance(error, InstantiationException):
        return _target_error(error)
    described = _type_error(f"{error}\n{error.__cause__ or ''}")
    if described is not None:
        return described
    message = str(error).split("Config search path:")[0]
    return message + _close_match(message, main)


def _target_error(error: InstantiationException) -> str | None:
    """The line for a `_target_` that does not exist; None for an error out of one, or out of its module."""
    if error.__cause__ is None:
        return str(error)  # not callable, or refused by Hydra
    found = re.match(r"Error locating target '(.+?)'.*(?:\nfull_key: (.+))?", str(error))
    reason = error.__cause__.__cause__  # of Hydra's ImportError
    if found is None or not isinstance(reason, (ModuleNotFoundError, AttributeError)):
        return None
    target, key = found.groups()
    if not f"{target}.".startswith(f"{reason.name}.") and reason.name not in target.split("."):
        return None  # the module exists, and an import inside of it fails
    return (
        f"{f'{key}.' if key else ''}_target_={target}: {reason}. Install its package, or put its folder on PYTHONPATH."
    )


def _type_error(message: str) -> str | None:
    """The line for a value of a wrong type, which OmegaConf's message describes; None if the message is about something
    else."""
    found = re.search(r"(.*(?:Value|value) '(.*?)'.*)\n\s*full_key: (\S+)\n\s*object_type=(\w+)", message)
    if found is None:
        return None
    reason, value, name, schema_name = found.groups()
    try:
        return f"{config.type_error(schema_name, name)} (got {value})."
    except StopIteration:  # a schema of the user's own
        return f"{name}: {reason}"


def _close_match(message: str, main: Callable[..., Any]) -> str:
    """A suggestion for a misspelt setting, which Hydra's message quotes."""

    def names(node: Any, prefix: str = "") -> list[str]:
        children = node.items() if isinstance(node, dict) else ()
        return [name for key, child in children for name in (f"{prefix}{key}", *names(child, f"{prefix}{key}."))]

    quoted = re.match(r"Could not override '([^']+)'", message)
    if quoted is None:
        return ""
    file = Path(inspect.unwrap(main).__code__.co_filename)
    config_name = file.parent.name if file.stem == "__main__" else file.stem
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        known = names(OmegaConf.to_container(hydra.compose(config_name)))
    close = difflib.get_close_matches(quoted[1], [name for name in known if name != quoted[1]], n=1)
    return f"; did you mean {close[0]}?" if close else "; --help lists the settings"


def _fail(message: str) -> NoReturn:
    _print_once(f"error: {' '.join(message.split())}")
    sys.exit(USER_ERROR)


def _print_once(message: str) -> None:
    if is_first_to_fail():
        print(message, file=sys.stderr, flush=True)
