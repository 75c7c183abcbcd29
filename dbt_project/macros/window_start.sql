{#-
  Start of the tumbling window that a UTC time falls into, DateTime64(0, 'UTC').

  Windows are counted from UTC midnight, so that each belongs to one day, also where `window_seconds` does not
  divide a day: the last window of the day is then the shorter one.
-#}
{% macro window_start(time) %}
  {%- set width = var('window_seconds') | int -%}
  {%- if not 1 <= width <= 86400 -%}
    {{ exceptions.raise_compiler_error("var 'window_seconds' is " ~ width ~ "; expected 1 to 86400") }}
  {%- endif -%}
  toDateTime64(toUnixTimestamp({{ time }}) - toUnixTimestamp({{ time }}) % 86400 % {{ width }}, 0, 'UTC')
{%- endmacro %}
