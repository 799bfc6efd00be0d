"""What of a live object is ours: what was applied, unless somebody touched it."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stepaudio_operator.kube.ownership import digest, merge_patch, owned, wanted

DESIRED: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "name": "prod-tts",
        "namespace": "speech",
        "labels": {"a": "1", "b": "2"},
        "ownerReferences": [
            {"uid": "u-1", "kind": "StepAudioDeployment", "name": "prod", "apiVersion": "g/v1"}
        ],
    },
    "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 8000}], "selector": {"x": "y"}},
}
# As a 1.35 API server stores it: defaults, a foreign label and a second manager.
LIVE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "name": "prod-tts",
        "namespace": "speech",
        "uid": "s-1",
        "resourceVersion": "77",
        "labels": {"a": "1", "b": "2", "foreign": "yes"},
        "ownerReferences": [
            {"uid": "u-1", "kind": "StepAudioDeployment", "name": "prod", "apiVersion": "g/v1"}
        ],
        "managedFields": [
            {
                "manager": "kubectl",
                "operation": "Update",
                "fieldsV1": {"f:metadata": {"f:labels": {"f:foreign": {}}}},
            },
            {
                "manager": "stepaudio-operator",
                "operation": "Apply",
                "fieldsV1": {
                    "f:metadata": {
                        "f:labels": {"f:a": {}, "f:b": {}},
                        "f:ownerReferences": {'k:{"uid":"u-1"}': {}},
                    },
                    "f:spec": {
                        "f:clusterIP": {},
                        "f:ports": {
                            'k:{"port":8000,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}}
                        },
                        "f:selector": {},
                    },
                },
            },
        ],
    },
    "spec": {
        "clusterIP": "None",
        "clusterIPs": ["None"],
        "ports": [
            {"name": "other", "port": 1, "protocol": "TCP", "targetPort": 1},
            {"name": "http", "port": 8000, "protocol": "TCP", "targetPort": 8000},
        ],
        "selector": {"x": "y"},
        "type": "ClusterIP",
    },
    "status": {"loadBalancer": {}},
}


def same(live: dict[str, Any], desired: dict[str, Any]) -> bool:
    return digest(owned(live, "stepaudio-operator")) == digest(wanted(desired))


def test_an_untouched_object_is_the_same_whatever_others_and_defaults_added() -> None:
    assert owned(LIVE, "stepaudio-operator") == wanted(DESIRED)
    assert same(LIVE, DESIRED)


def test_an_object_we_never_applied_is_not_ours() -> None:
    assert owned(LIVE, "someone-else") is None
    assert digest(None) != digest(wanted(DESIRED))


def test_a_changed_value_of_ours_is_found() -> None:
    live = copy.deepcopy(LIVE)
    live["spec"]["selector"] = {"x": "z"}
    assert not same(live, DESIRED)


def test_a_field_taken_over_by_another_manager_is_found() -> None:
    live = copy.deepcopy(LIVE)
    del live["metadata"]["managedFields"][1]["fieldsV1"]["f:metadata"]["f:labels"]["f:a"]
    assert not same(live, DESIRED)


def test_a_removed_list_item_of_ours_is_found() -> None:
    live = copy.deepcopy(LIVE)
    del live["spec"]["ports"][1]
    assert not same(live, DESIRED)


def test_a_field_that_we_want_no_longer_is_found() -> None:
    desired = copy.deepcopy(DESIRED)
    del desired["metadata"]["labels"]["b"]
    assert not same(LIVE, desired)


def test_a_write_to_the_status_subresource_is_not_an_apply_of_the_object() -> None:
    live = copy.deepcopy(LIVE)
    live["metadata"]["managedFields"][1]["subresource"] = "status"
    assert owned(live, "stepaudio-operator") is None


def test_the_spelling_of_a_quantity_and_empty_values_do_not_count() -> None:
    ours = {
        "spec": {"resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}}, "a": {}, "b": [], "c": None}
    }
    theirs = {"spec": {"resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}}
    assert digest(ours) == digest(theirs)
    assert digest({"spec": {"emptyDir": {"sizeLimit": "1024Mi"}}}) == digest(
        {"spec": {"emptyDir": {"sizeLimit": "1Gi"}}}
    )


def test_a_string_that_looks_like_a_quantity_elsewhere_counts_as_written() -> None:
    assert digest({"env": [{"value": "1000m"}]}) != digest({"env": [{"value": "1"}]})
    assert digest({"limits": {"cpu": "1"}}) != digest({"limits": {"cpu": "2"}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
no_nulls = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=5) | st.lists(json_values, max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
statuses = st.dictionaries(st.text(max_size=3), no_nulls, max_size=4)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, as the server does it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@given(statuses, statuses)
def test_a_merge_patch_turns_the_old_status_into_the_new_one(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    patch = merge_patch(old, new)
    assert merged(old, patch) == new
    assert (patch == {}) == (old == new)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda part: (
            st.lists(part, max_size=3)
            | st.dictionaries(
                st.sampled_from(["a", "limits", "requests", "sizeLimit", "null"]), part, max_size=3
            )
        ),
    )
)
def test_an_object_that_needs_no_other_form_has_the_digest_of_its_canonical_one(value: Any) -> None:
    """`digest` takes a short way where nothing is to be rewritten; beside what is, it takes the long one."""
    plain, rewritten = {"spec": {"v": value}}, {"spec": {"v": value}, "status": None, "left": {}}
    assert digest(plain) == digest(rewritten)
