"""What is overridden of Litestar, which has no public way to it, is still there to be overridden."""

import inspect
import re

from litestar import Litestar

from hansa.api.app import App

HOOK = "_get_default_plugins"


def test_litestar_still_asks_the_hook_by_which_its_plugins_are_left_out() -> None:
    """`on_app_init`, `plugins` and `from_config` all come after Pydantic was imported. When this fails Litestar has changed, and
    `hansa.api.app.App` is to be read anew against `Litestar.__init__`."""
    hook = vars(Litestar).get(HOOK)
    assert isinstance(hook, staticmethod), f"Litestar.{HOOK} is gone: nothing overrides what it imports any more"
    assert [*inspect.signature(hook.__func__).parameters] == ["plugins"], "it is given something else"
    assert f"self.{HOOK}(list(plugins or []))" in inspect.getsource(vars(Litestar)["__init__"]), "it is asked in another way"
    named = set(re.findall(r"plugins\.append\((\w+)\(\)\)", inspect.getsource(hook.__func__)))
    kept = {type(each).__name__ for each in vars(App)[HOOK].__func__([])}
    left_out = {"PydanticPlugin", "PydanticSchemaPlugin", "PydanticInitPlugin", "PydanticDIPlugin", "AttrsSchemaPlugin"}
    assert named == kept | left_out, "Litestar has other plugins of its own now: does a route need one?"
