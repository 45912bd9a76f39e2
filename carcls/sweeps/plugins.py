"""What of Hydra's plugins is ours."""

import importlib
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin

# Hydra 1.3 takes plugins from the package `hydra_plugins` alone, for which it looks at all that is
# installed. Ours are put there when they are needed.
_PACKAGE = "hydra_plugins"


def register(plugin: type[Plugin], group: str, name: str, **values: Any) -> str:
    """Makes a plugin known to Hydra, as an option of a group.

    Args:
        plugin: Its class.
        group: Such as `hydra/launcher`.
        name: Of the option.
        values: Of its configuration, to which its constructor's arguments default.

    Returns:
        What `_target_` has to be for it.
    """
    known = Plugins.instance()  # which looks for those installed, before ours are there
    module = f"{_PACKAGE}.carcls_{name}"
    with suppress(ImportError):
        importlib.import_module(_PACKAGE)  # where there are others
    sys.modules.setdefault(_PACKAGE, ModuleType(_PACKAGE))
    sys.modules[module] = sys.modules[plugin.__module__]
    plugin.__module__ = module
    known.register(plugin)
    target = f"{module}.{plugin.__name__}"
    node = {"_target_": target, **values}
    ConfigStore.instance().store(group=group, name=name, node=node, provider="carcls")
    return target
