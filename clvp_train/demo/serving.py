"""Opens the models and serves the page until Ctrl-C."""

import logging
import os
import threading
from importlib.util import find_spec

from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train.demo.session import DemoSession
from clvp_train.errors import UserError


def serve(cfg: DictConfig) -> None:
    """Serves the page until Ctrl-C."""
    if find_spec("gradio") is None:
        raise UserError("the demo needs gradio. Run pip install clvp-train[demo].")
    reranker = instantiate(cfg.reranker, checkpoint=cfg.checkpoint)
    session = DemoSession(instantiate(cfg.tortoise), reranker, cfg.voices, cfg.num_candidates)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    from clvp_train.demo.page import CSS, THEME, make_page

    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio requests its own page once
    page = make_page(session)
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
    except KeyboardInterrupt:
        print("demo: stopped", flush=True)
    finally:
        page.close(verbose=False)
