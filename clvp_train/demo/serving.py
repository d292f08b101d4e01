"""Opens the models and serves the page until Ctrl-C."""

import logging
import os
import signal
import threading
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub.repocard import metadata_load
from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train.demo.session import DemoSession
from clvp_train.demo.stored import StoredSession
from clvp_train.errors import Stopped, UserError
from clvp_train.hub import describe, read_settings, settings_file
from clvp_train.io.sanitize import escape_markdown
from clvp_train.models import resolve_checkpoint

ANSWERS_FILE = "listening_test.csv"  # in the run folder


def serve(cfg: DictConfig) -> None:
    """Serves the page until Ctrl-C."""
    if find_spec("gradio") is None:
        raise UserError('gradio: not installed, but the demo needs it. Run pip install "clvp-train[demo]".')
    reranker = instantiate(cfg.reranker, checkpoint=cfg.checkpoint)
    session: DemoSession | StoredSession
    if cfg.candidates is None:
        session = DemoSession(instantiate(cfg.tortoise), reranker, cfg.voices, cfg.num_candidates)
    else:
        session = StoredSession(reranker, cfg.candidates)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    from clvp_train.demo.page import CSS, THEME, make_page

    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio requests its own page once
    page = make_page(session, training_data(resolve_checkpoint(cfg.checkpoint)), Path(cfg.paths.output, ANSWERS_FILE))
    try:
        _, address, _ = page.launch(
            server_name=cfg.host,
            server_port=cfg.port,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            run_history=False,
            theme=THEME,
            css_paths=CSS,
            prevent_thread_lock=True,
        )
    except (OSError, OverflowError) as error:
        raise UserError(f"host={cfg.host} port={cfg.port}: cannot be opened ({error}). Set another port.") from None
    print(f"demo: {address} (Ctrl-C to stop)", flush=True)
    try:
        threading.Event().wait()
    except Stopped as stopped:
        if stopped.signal_number != signal.SIGINT:
            raise
        print("demo: stopped", flush=True)
    finally:
        page.close(verbose=False)


def training_data(model: Path) -> str:
    """What a model was trained on, in Markdown: from the training config in its folder, else the data sets in its card.

    Args:
        model: a folder or file with weights.
    """
    if settings := read_settings(settings_file(model)):
        names = ["pairs"] if settings.get("pairs") else ["corpus", "codes"]
        return ", ".join(f"{name} {escape_markdown(describe(settings.get(name)))}" for name in names)
    card = model / "README.md"
    datasets = (metadata_load(card) or {}).get("datasets") if card.is_file() else None
    datasets = [datasets] if isinstance(datasets, str) else datasets
    return f"data sets {escape_markdown(', '.join(map(str, datasets)))}" if datasets else "unknown"
