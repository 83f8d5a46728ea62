"""What is planned for a bucket: only what is ours is changed, and nothing twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.objects.bucket import Change, Found, Part, Refused, Wanted, plan

THEIRS = {"Sid": "Theirs", "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "x"}
RULE = {"ID": "theirs", "AllowedOrigins": ["https://x.example"], "AllowedMethods": ["GET"]}
OLD_RULE = {"ID": "theirs", "Status": "Enabled", "Prefix": "logs/", "Expiration": {"Days": 3}}


def only(wanted: Wanted, **found: object) -> Change:
    (change,) = plan(wanted, Found(exists=True, **found))  # type: ignore[arg-type]
    return change


def test_a_bucket_that_is_missing_is_made_first():
    made, policy = plan(Wanted("b", public=True), Found(exists=False))
    assert (made.part, made.text) == (Part.BUCKET, "make the bucket 'b'")
    assert policy.part is Part.POLICY


def test_what_the_options_do_not_speak_of_is_left_alone():
    found = Found(True, {"Statement": [THEIRS]}, [RULE], [OLD_RULE], versioning=True)
    assert plan(Wanted("b"), found) == []
    assert Wanted("b").parts == [Part.BUCKET]


# --- who may read


def test_all_may_read_below_the_prefix():
    change = only(Wanted("b", "a/c", public=True))
    assert change.text == "let all read the files below a/c/"
    assert change.value["Version"] == "2012-10-17"
    (statement,) = change.value["Statement"]
    assert statement["Resource"] == ["arn:aws:s3:::b/a/c/*"]
    assert statement["Action"] == ["s3:GetObject"]


def test_statements_of_others_stay():
    wanted = Wanted("b", public=True)
    change = only(wanted, policy={"Version": "2008-10-17", "Id": "x", "Statement": THEIRS})
    assert change.value["Version"] == "2008-10-17"
    assert change.value["Id"] == "x"
    assert change.value["Statement"][0] == THEIRS
    assert change.text == "let all read the files of the bucket"

    taken_back = only(Wanted("b", public=False), policy=change.value)
    assert taken_back.text == "let nobody read the files of the bucket"
    assert taken_back.value["Statement"] == [THEIRS]


def test_a_policy_without_a_statement_is_none():
    policy = only(Wanted("b", public=True)).value
    assert only(Wanted("b", public=False), policy=policy).value == {}
    assert plan(Wanted("b", public=False), Found(exists=True)) == []


def test_each_prefix_has_a_statement_of_its_own():
    policy = only(Wanted("b", "one", public=True)).value
    both = only(Wanted("b", "two", public=True), policy=policy).value
    assert len(both["Statement"]) == 2
    assert plan(Wanted("b", "one", public=True), Found(True, both)) == []
    assert len(only(Wanted("b", "one", public=False), policy=both).value["Statement"]) == 1


@pytest.mark.parametrize("principal", ["*", {"AWS": "*"}, {"AWS": ["*"]}])
@pytest.mark.parametrize("action", ["s3:GetObject", ["s3:GetObject"]])
def test_the_same_in_other_words_is_the_same(principal, action):
    policy = only(Wanted("b", public=True)).value
    (statement,) = policy["Statement"]
    other = statement | {"Principal": principal, "Action": action, "Condition": {}}
    found = {"Statement": [other | {"Resource": statement["Resource"][0]}]}
    assert plan(Wanted("b", public=True), Found(True, found)) == []


@pytest.mark.parametrize(
    "other", [{"Effect": "Deny"}, {"Principal": {"CanonicalUser": "x"}}, {"Resource": None}]
)
def test_what_is_not_the_same_is_set_right(other):
    (statement,) = only(Wanted("b", public=True)).value["Statement"]
    change = only(Wanted("b", public=True), policy={"Statement": [statement | other]})
    assert change.value["Statement"] == [statement]


# --- browsers


def test_origins_may_upload_and_rules_of_others_stay():
    wanted = Wanted("b", origins=("https://www.example.org", "https://m.example.org"))
    change = only(wanted, cors=[RULE])
    assert change.text == "let pages of https://www.example.org, https://m.example.org upload"
    assert change.value[0] == RULE
    assert change.value[1]["AllowedOrigins"] == list(wanted.origins)
    assert plan(wanted, Found(True, cors=change.value)) == []

    assert only(Wanted("b", origins=()), cors=change.value).value == [RULE]
    assert plan(Wanted("b", origins=()), Found(True, cors=[RULE])) == []


# --- what goes by itself


def test_rules_for_what_goes_by_itself():
    wanted = Wanted(
        "b",
        "a",
        abort_after=7,
        old_versions_after=30,
        expire={"tmp/": 1},
        has_lifecycle=True,
    )
    change = only(wanted, lifecycle=[OLD_RULE])
    assert change.text == (
        "give up uploads that nobody ended after 7 days; remove old versions after 30 days; "
        "remove files below 'tmp/' after 1 day"
    )
    theirs, uploads, versions, expire = change.value
    assert theirs == OLD_RULE
    assert uploads["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert versions["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert expire["Filter"] == {"Prefix": "a/tmp/"}
    assert plan(wanted, Found(True, lifecycle=change.value)) == []
    assert plan(wanted, Found(True, lifecycle=change.value[::-1])) == []

    nothing = only(Wanted("b", "a", has_lifecycle=True), lifecycle=change.value)
    assert (nothing.text, nothing.value) == ("let nothing go by itself", [OLD_RULE])


def test_a_prefix_may_stand_beside_the_filter():
    wanted = Wanted("b", "a", abort_after=7, has_lifecycle=True)
    (rule,) = only(wanted).value
    older = {**rule, "Prefix": rule["Filter"]["Prefix"]}
    del older["Filter"]
    assert plan(wanted, Found(True, lifecycle=[older])) == []
    assert plan(wanted, Found(True, lifecycle=[rule | {"Filter": None, "Prefix": "a/"}])) == []
    assert plan(wanted, Found(True, lifecycle=[rule | {"Filter": {"Prefix": "x"}}]))


# --- versions, and engines that do not know a part


def test_old_versions():
    assert only(Wanted("b", versioning=True)).text == "keep old versions"
    change = only(Wanted("b", versioning=False), versioning=True)
    assert (change.text, change.value) == ("keep no more old versions", False)
    assert plan(Wanted("b", versioning=True), Found(True, versioning=True)) == []


def test_what_an_engine_does_not_know_is_said():
    wanted = Wanted("b", public=True, origins=("*",), has_lifecycle=True, versioning=True)
    no = Refused("answered 501")
    changes = plan(wanted, Found(True, no, no, no, no))
    assert [change.part for change in changes] == wanted.parts[1:]
    assert {change.refused for change in changes} == {"answered 501"}
    assert all(change.text for change in changes)


# --- twice


PREFIXES = st.sampled_from(["", "a", "a/b"])
DAYS = st.none() | st.integers(1, 40)
WANTED = st.builds(
    Wanted,
    bucket=st.just("b"),
    prefix=PREFIXES,
    public=st.none() | st.booleans(),
    origins=st.none() | st.sampled_from([(), ("*",), ("https://a.example", "https://b.example")]),
    abort_after=DAYS,
    old_versions_after=DAYS,
    expire=st.dictionaries(st.sampled_from(["x/", "y/"]), st.integers(1, 9)),
    has_lifecycle=st.booleans(),
    versioning=st.none() | st.booleans(),
)


@given(st.lists(WANTED, min_size=1, max_size=4))
def test_changing_twice_changes_nothing_and_never_what_is_another_s(several):
    parts = {"policy": {"Statement": [THEIRS]}, "cors": [RULE], "lifecycle": [OLD_RULE]}
    has: dict[str, object] = {**parts, "versioning": False}
    for wanted in several:
        for change in plan(wanted, Found(True, **has)):
            has[change.part.value] = change.value
        assert plan(wanted, Found(True, **has)) == []
    assert THEIRS in has["policy"]["Statement"]
    assert RULE in has["cors"]
    assert OLD_RULE in has["lifecycle"]
