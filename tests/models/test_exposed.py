"""Which models BI tools do not see."""

from __future__ import annotations

from pathlib import Path

from headrace.config.settings import load_settings
from headrace.models.exposed import beside, hidden


def test_headraces_own_tables_of_older_states_are_hidden() -> None:
    assert hidden(load_settings()) == ("sessions_latest", "user_days", "users_latest")


def test_views_of_states_are_read_where_they_lie() -> None:
    assert beside(load_settings()) == (
        ("analytics_speed", "event_states_live"), ("analytics_speed", "performance_states_live"),
    )  # fmt: skip


def test_a_projects_models_are_hidden_as_they_say(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[project]\nname = 'shop'\n")
    folder = tmp_path / "dbt" / "models"
    folder.mkdir(parents=True)
    own = load_settings(project_dir=tmp_path)
    assert own.project is not None
    folder = own.project.dbt / "models"
    folder.mkdir(parents=True, exist_ok=True)
    (own.project.dbt / "dbt_project.yml").write_text("name: shop\n")
    (folder / "a.yml").write_text(
        "models:\n  - name: kept_back\n    config: {meta: {bi: false}}\n"
        "  - name: shown\n    config: {meta: {bi: true}}\n"
        "  - name: older_way\n    meta: {bi: false}\n  - {}\n  - text\n"
    )
    (folder / "broken.yml").write_text("models: [bi: false\n")
    (folder / "list.yaml").write_text("- bi: false\n")
    assert set(hidden(own)) - {"sessions_latest", "user_days", "users_latest"} == {"kept_back", "older_way"}
