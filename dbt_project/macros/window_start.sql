{#-
  Start of the tumbling window of `width` seconds that a UTC time falls into, DateTime64(0, 'UTC').

  Windows are counted from UTC midnight, so that each belongs to one day, also where the width does not divide a day:
  the last window of the day is then the shorter one.
-#}
{% macro window_start(time, width) %}
  toDateTime64(toUnixTimestamp({{ time }}) - toUnixTimestamp({{ time }}) % 86400 % {{ width }}, 0, 'UTC')
{%- endmacro %}

{#- Array of window widths, s; each once. -#}
{% macro window_widths(widths) %}
  {%- for width in widths if not 1 <= width | int <= 86400 -%}
    {{ exceptions.raise_compiler_error(
      "a window is " ~ width ~ " s wide; expected 1 to 86400: see vars window_seconds and rollup_seconds"
    ) }}
  {%- endfor -%}
  {%- if widths -%}
  [{% for width in widths | map('int') | unique %}toUInt32({{ width }}){{ ', ' if not loop.last }}{% endfor %}]
  {%- else -%}
  emptyArrayUInt32()
  {%- endif -%}
{%- endmacro %}

{#- The widths of the roll-ups that are not the marts' own width. -#}
{% macro rollup_widths() %}
  {%- set own = headrace.setting('window_seconds') | int -%}
  {{ return(headrace.setting('rollup_seconds') | map('int') | reject('equalto', own) | list) }}
{% endmacro %}
