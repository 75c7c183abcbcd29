{#-
  The days that this run rebuilds, as (start, end), both inclusive and YYYY-MM-DD; none for every day.

  They are the vars start_date and end_date or, where those are not given, the environment variables DBT_START_DATE
  and DBT_END_DATE. Both ways are the same but for speed: dbt parses the whole project anew when a var changes. For
  the same reason nothing is looked up while dbt parses.

  A full refresh rebuilds every day whatever the vars say: it swaps the whole table, and a range would
  throw the other days away.
-#}
{% macro rebuilt_range() %}
  {%- if not execute -%}
    {{ return(none) }}
  {%- endif -%}
  {%- set start = var('start_date', none) or env_var('DBT_START_DATE', '') -%}
  {%- set end = var('end_date', none) or env_var('DBT_END_DATE', '') -%}
  {%- if not start and not end or flags.FULL_REFRESH -%}
    {{ return(none) }}
  {%- endif -%}
  {%- for name, day in [('start_date', start), ('end_date', end)] -%}
    {%- if not day -%}
      {{ exceptions.raise_compiler_error("var '" ~ name ~ "' is missing: give both start_date and end_date, or neither for every day") }}
    {%- elif not modules.re.fullmatch('[0-9]{4}-[0-9]{2}-[0-9]{2}', day | string) -%}
      {{ exceptions.raise_compiler_error("var '" ~ name ~ "' is '" ~ day ~ "'; expected a UTC day as YYYY-MM-DD") }}
    {%- endif -%}
  {%- endfor -%}
  {%- if start | string > end | string -%}
    {{ exceptions.raise_compiler_error("start_date " ~ start ~ " is after end_date " ~ end) }}
  {%- endif -%}
  {{ return((start | string, end | string)) }}
{% endmacro %}

{#-
  Condition on a Date column: it lies in the rebuilt days, reaching `back` and `ahead` days further, or on any of the
  `later` days. Always true where every day is rebuilt.
-#}
{% macro in_rebuilt_days(column, back=0, ahead=0, later=false) %}
  {%- set range = headrace.rebuilt_range() -%}
  {%- if range is none -%}
    true
  {%- elif later -%}
    {{ column }} >= toDate('{{ range[0] }}') - {{ back }}
  {%- else -%}
    {{ column }} between toDate('{{ range[0] }}') - {{ back }} and toDate('{{ range[1] }}') + {{ ahead }}
  {%- endif -%}
{% endmacro %}
