{#- No two rows of the refreshed days agree in all of `columns`. -#}
{% test unique_grain(model, columns, day) %}

select
    {{ columns | join(', ') }},
    count() as copies
from {{ model }}
where {{ in_rebuilt_days(day) }}
group by {{ columns | join(', ') }}
having copies > 1

{% endtest %}
