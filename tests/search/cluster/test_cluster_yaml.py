"""The cluster file in ``runs/recipes`` is one that Ray accepts, by its own schema, and asks for a token."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

RECIPES = Path(__file__).parents[3] / "runs" / "recipes"


@pytest.fixture(params=sorted(path.name for path in RECIPES.glob("ray-cluster-*.yaml")))
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded = yaml.safe_load((RECIPES / request.param).read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def schema() -> Any:
    pytest.importorskip("ray")
    return json.loads((files("ray.autoscaler") / "ray-schema.json").read_text())


def test_it_fits_the_schema_of_ray(cluster: dict[str, Any], schema: Any) -> None:
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster | {"max_wrokers": 3}, schema)


def test_its_types_of_nodes_are_consistent(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    workers = {name: node for name, node in types.items() if name != cluster["head_node_type"]}
    assert sum(node["max_workers"] for node in workers.values()) <= cluster["max_workers"]
    assert any(node["resources"].get("GPU") for node in workers.values())
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in str(cluster["head_start_ray_commands"])
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = (command for command in cluster[key] if " ray start " in command)
        assert "RAY_AUTH_MODE=token" in start
    assert "auth_token" in str(cluster["file_mounts"])
