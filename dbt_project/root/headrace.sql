{#-
  dbt looks overrides of its adapter's macros up in the root project alone. These hand models of this project to the
  macros of Headrace: days are replaced whole, tables are replicated on a cluster, unit tests compare states.
-#}
{% macro clickhouse__incremental_insert_overwrite(existing_relation, partition_by, is_distributed=False) %}
  {{ return(headrace.replace_days(existing_relation, is_distributed)) }}
{% endmacro %}

{% macro engine_clause() %}
  {{- headrace.engine_clause() -}}
{% endmacro %}

{% macro clickhouse__get_unit_test_sql(main_sql, expected_fixture_sql, expected_column_names) %}
  {{ return(headrace.clickhouse__get_unit_test_sql(main_sql, expected_fixture_sql, expected_column_names)) }}
{% endmacro %}
