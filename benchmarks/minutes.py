"""What a model is trained as in some minutes, whoever counts them: recipes are asked once, and the clock, or rounds, only end it."""

from typing import Any

from pofx import api, discovery
from pofx.core import Budget, DataSpec


def settings(model: str, spec: DataSpec, minutes: float, **config: Any) -> dict[str, Any]:
    """Everything that a model's recipe chooses for a budget of minutes, as `pofx.train` takes it.

    A recipe that is asked for as many rounds may choose a smaller network, and a busy machine would train another model than an idle one.

    Arguments:
        config: fields that are not left to the recipe.
    """
    chosen = api.recipe(discovery.model(model), model, spec, Budget(minutes=minutes))
    return {**chosen.config.to_json(), **config, "batch_size": chosen.batch_size, "ema": chosen.ema}
