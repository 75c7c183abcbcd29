{#-
  Takes the place of dbt's macro of this name: what a unit test got and what it expects, one below the other. Columns
  of states are compared as what they come to, since no client of ClickHouse can read a state.
-#}
{% macro clickhouse__get_unit_test_sql(main_sql, expected_fixture_sql, expected_column_names) %}
  {%- set states = [] -%}
  {%- for column in adapter.get_column_schema_from_query(main_sql) -%}
    {%- if column.data_type.startswith('AggregateFunction') -%}
      {%- do states.append(column.name) -%}
    {%- endif -%}
  {%- endfor -%}
  {%- for rows, side in [(main_sql, 'actual'), (expected_fixture_sql, 'expected')] %}
    select
      {%- for name in expected_column_names %}
      {{ 'finalizeAggregation(' ~ name ~ ') as ' ~ name if name.strip('`"') in states else name }},
      {%- endfor %}
      '{{ side }}' as actual_or_expected
    from (
      {{ rows }}
    )
    {{ 'union all' if not loop.last }}
  {%- endfor %}
{% endmacro %}
