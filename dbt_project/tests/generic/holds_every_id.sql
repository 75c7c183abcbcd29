{#- On every refreshed day, the rows of the model are as many as the different ids of `source_model`. -#}
{% test holds_every_id(model, source_model, key, day) %}

select {{ day }}, sum(held) as held_rows, sum(expected) as expected_rows
from (
    select {{ day }}, count() as held, toUInt64(0) as expected
    from {{ model }}
    where {{ in_rebuilt_days(day) }}
    group by {{ day }}
    union all
    select {{ day }}, toUInt64(0) as held, uniqExact({{ key }}) as expected
    from {{ source_model }}
    where {{ in_rebuilt_days(day) }}
    group by {{ day }}
)
group by {{ day }}
having held_rows != expected_rows

{% endtest %}
