{#- SQL string literals, comma separated. -#}
{% macro quoted_list(texts) %}
  {%- for text in texts -%}
    '{{ text | replace("\\", "\\\\") | replace("'", "\\'") }}'{{ ', ' if not loop.last }}
  {%- endfor -%}
{% endmacro %}

{#- Array(UInt8) of the funnel steps, counted from 1, that an event type takes. -#}
{% macro funnel_steps_of(event_type) %}
  {%- set steps = var('funnel_steps') -%}
  {%- if not steps | length or steps | length > 20 -%}
    {{ exceptions.raise_compiler_error("var 'funnel_steps' has " ~ steps | length ~ " steps; expected 1 to 20") }}
  {%- endif -%}
  arrayFilter(
            step -> step > 0,
            [
                {%- for step in steps %}
                if({{ event_type }} in ({{ quoted_list(step.event_types) }}), toUInt8({{ loop.index }}), toUInt8(0)){{ ',' if not loop.last }}
                {%- endfor %}
            ]
        )
{%- endmacro %}
