"""The command: opens the models, serves the page, and ends with Ctrl-C."""

import logging
import os
import threading
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

import clvp_train.build  # noqa: F401  what conf/ calls ${clvp_train_data:} is known from there
from clvp_train.command import command
from clvp_train.demo.studio import Studio
from clvp_train.errors import UserError, check_number


def run_demo(cfg: DictConfig) -> None:
    """Serves the page until Ctrl-C."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio looks whether its page is there
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    try:
        from clvp_train.demo.page import CSS, THEME, make_page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError("the demo needs gradio: pip install clvp-train[demo]") from None
    check_number("port", cfg.port, 1)
    reranker = instantiate(cfg.reranker, checkpoint=cfg.checkpoint)
    page = make_page(Studio(instantiate(cfg.tortoise), reranker, cfg.voices, cfg.num_candidates))
    quiet: dict[str, Any] = {"quiet": True, "share": False, "ssr_mode": False, "footer_links": [], "run_history": False}
    try:
        _, address, _ = page.launch(
            server_name=cfg.host, server_port=cfg.port, prevent_thread_lock=True, theme=THEME, css_paths=CSS, **quiet
        )
    except (OSError, OverflowError) as error:
        raise UserError(f"host={cfg.host} port={cfg.port} cannot be served on ({error}): set another port") from None
    print(f"demo: {address} (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("demo: ended", flush=True)
    finally:
        page.close(verbose=False)


demo = command("demo", run_demo)
