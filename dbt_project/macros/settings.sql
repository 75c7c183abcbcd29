{#-
  The value of a var of Headrace, for models of any package.

  dbt shows a package's own vars (dbt_project.yml) to the models of that package alone, and those that a root project
  sets below `vars: headrace:` too. So the defaults stand here once more, for macros that are called by models of the
  user's own; a test compares the two.
-#}
{% macro setting(name) %}
  {%- set defaults = {
    'window_time': 'event',
    'window_seconds': 60,
    'rollup_seconds': [3600, 86400],
    'slow_ms': 2500,
    'lookaround_days': 1,
    'lateness_seconds': 600,
    'speed_days': 3,
    'repeat_days': 7,
    'speed_repeat_days': 30,
    'conversion_event_types': ['purchase', 'signup', 'order'],
    'funnel_steps': [
      {'name': 'visit', 'event_types': ['page_view', 'screen_view', 'page_load', 'app_open']},
      {'name': 'cart', 'event_types': ['add_to_cart']},
      {'name': 'purchase', 'event_types': ['purchase', 'order']},
    ],
    'retention_days': 30,
  } -%}
  {%- if name not in defaults -%}
    {{ exceptions.raise_compiler_error(
      "there is no var '" ~ name ~ "' of Headrace; there are " ~ defaults | join(', ')
    ) }}
  {%- endif -%}
  {%- set given = var(name, none) -%}
  {%- if given is none -%}
    {%- set given = (var('headrace', none) or {}).get(name, none) -%}
  {%- endif -%}
  {%- set value = defaults[name] if given is none else given -%}
  {%- do headrace.checked_setting(name, value) -%}
  {{ return(value) }}
{% endmacro %}

{#- Refuses a value that no model can be made of, and says where it is set. -#}
{% macro checked_setting(name, value) %}
  {%- set wrong = namespace(said='') -%}
  {%- if name == 'window_seconds' -%}
    {%- if value is not integer or value is boolean or not 1 <= value <= 86400 -%}
      {%- set wrong.said = "is " ~ value ~ "; expected 1 to 86400" -%}
    {%- endif -%}
  {%- elif name in (
    'lookaround_days', 'lateness_seconds', 'speed_days', 'repeat_days', 'speed_repeat_days', 'retention_days'
  ) -%}
    {%- set least = 1 if name in ('speed_days', 'retention_days') else 0 -%}
    {%- if value is not integer or value is boolean or value < least -%}
      {%- set wrong.said = "is " ~ value ~ "; expected a whole number from " ~ least ~ " on" -%}
    {%- endif -%}
  {%- elif name == 'slow_ms' -%}
    {%- if value is not number or value is boolean or value <= 0 -%}
      {%- set wrong.said = "is " ~ value ~ "; expected a number of ms above 0" -%}
    {%- endif -%}
  {%- elif name == 'rollup_seconds' -%}
    {%- if not headrace.is_list(value) or value | reject('integer') | list -%}
      {%- set wrong.said = "is " ~ value ~ "; expected a list of widths in s, such as [3600, 86400]" -%}
    {%- endif -%}
  {%- elif name == 'conversion_event_types' -%}
    {%- if not headrace.is_list(value) or value | reject('string') | list -%}
      {%- set wrong.said = "is " ~ value ~ "; expected a list of event types, such as [purchase, signup]" -%}
    {%- endif -%}
  {%- elif name == 'funnel_steps' -%}
    {%- set wrong.said = headrace.wrong_funnel(value) -%}
  {%- endif -%}
  {%- if wrong.said -%}
    {{ exceptions.raise_compiler_error("var '" ~ name ~ "' " ~ wrong.said ~ "; it is set in dbt_project.yml") }}
  {%- endif -%}
{% endmacro %}

{#- What is wrong with the steps of a funnel; empty if nothing is. -#}
{% macro wrong_funnel(steps) %}
  {%- set example = "expected a list such as [{name: cart, event_types: [add_to_cart]}]" -%}
  {%- if not headrace.is_list(steps) -%}
    {{ return("is " ~ steps ~ "; " ~ example) }}
  {%- elif not 1 <= steps | length <= 20 -%}
    {{ return("has " ~ steps | length ~ " steps; expected 1 to 20") }}
  {%- endif -%}
  {%- set names = [] -%}
  {%- for step in steps -%}
    {%- set others = step.keys() | reject('in', ['name', 'event_types']) | list if step is mapping else [] -%}
    {%- set types = step.event_types -%}
    {%- if step is not mapping -%}
      {{ return("has step " ~ loop.index ~ ", " ~ step ~ "; " ~ example) }}
    {%- elif step.name is not string or not step.name -%}
      {{ return("has step " ~ loop.index ~ " without a name; " ~ example) }}
    {%- elif step.name in names -%}
      {{ return("has two steps '" ~ step.name ~ "'; give each a name of its own") }}
    {%- elif not headrace.is_list(types) or not types or types | reject('string') | list -%}
      {{ return("has step '" ~ step.name ~ "' without event_types; " ~ example) }}
    {%- elif others -%}
      {{ return("has step '" ~ step.name ~ "' with " ~ others | join(', ') ~ "; " ~ example) }}
    {%- endif -%}
    {%- do names.append(step.name) -%}
  {%- endfor -%}
  {{ return('') }}
{% endmacro %}

{#- Whether a value of YAML is a list. -#}
{% macro is_list(value) %}
  {{ return(value is sequence and value is not string and value is not mapping) }}
{% endmacro %}

{#- Whether one of Headrace's own streams, events or metrics, is in use: HEADRACE_BUILTIN_STREAMS may leave it out. -#}
{% macro has_stream(name) %}
  {{ return(name in env_var('HEADRACE_BUILTIN_STREAMS', 'events metrics').split()) }}
{% endmacro %}
