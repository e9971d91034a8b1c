from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from adapters.engines.vllm.replicas import ranking

labels = st.lists(st.text(min_size=1, max_size=10), min_size=1, max_size=6, unique=True)


@given(key=st.text(max_size=20), labels=labels)
def test_a_server_that_leaves_moves_only_the_mixes_it_served(key, labels):
    order = ranking(key, labels)
    assert sorted(order) == sorted(labels)
    for gone in labels:
        left = [label for label in labels if label != gone]
        assert ranking(key, left) == [label for label in order if label != gone]


@given(key=st.text(max_size=20), labels=labels)
def test_the_order_of_the_settings_does_not_matter(key, labels):
    assert ranking(key, labels) == ranking(key, labels[::-1])


def test_mixes_spread_over_all_servers():
    servers = [f"http://gpu{number}:8000" for number in range(4)]
    firsts = Counter(ranking(f"mix {number}", servers)[0] for number in range(1000))
    assert all(200 < firsts[server] < 300 for server in servers)
