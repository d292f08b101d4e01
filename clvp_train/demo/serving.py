"""The command: opens the models, serves the page, and ends with Ctrl-C."""

import logging
import os
import threading
from importlib.util import find_spec
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train.demo.session import DemoSession
from clvp_train.errors import UserError, check_number


def serve(cfg: DictConfig) -> None:
    """Serves the page until Ctrl-C."""
    if find_spec("gradio") is None:
        raise UserError("the demo needs gradio: pip install clvp-train[demo]")
    check_number("port", cfg.port, 1)
    reranker = instantiate(cfg.reranker, checkpoint=cfg.checkpoint)
    studio = DemoSession(instantiate(cfg.tortoise), reranker, cfg.voices, cfg.num_candidates)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    from clvp_train.demo.page import CSS, THEME, make_page

    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks itself whether its page is there
    page = make_page(studio)
    settings: dict[str, Any] = {
        "quiet": True,
        "share": False,
        "ssr_mode": False,
        "footer_links": [],
        "run_history": False,
    }
    settings |= {"theme": THEME, "css_paths": CSS, "prevent_thread_lock": True}
    try:
        _, address, _ = page.launch(server_name=cfg.host, server_port=cfg.port, **settings)
    except (OSError, OverflowError) as error:
        raise UserError(f"host={cfg.host} port={cfg.port} cannot be served on ({error}): set another port") from None
    print(f"demo: {address} (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("demo: ended", flush=True)
    finally:
        page.close(verbose=False)
