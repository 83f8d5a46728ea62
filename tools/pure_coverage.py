"""The pure modules reach 100 % branch coverage from their own test files alone.

A pure module decides and does no I/O, so plain values can reach each of its
branches. What other tests happen to pass through does not count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: One parser in several modules.
TOPOLOGY = " ".join(
    f"tests/topology/test_{name}.py"
    for name in ("model", "keys", "rules", "store", "roles", "poolers", "app", "dns", "mounts")
)

#: What balancers do, what each is given, and what is behind them.
FRONTS = "tests/topology/test_fronts.py"

#: The steps between two sites; those of poolers, name servers and mounts stand with the rest of
#: theirs.
CHANGES = " ".join(
    f"tests/topology/test_{name}.py" for name in ("changes", "poolers", "dns", "mounts")
)

#: Module below src/outgrow -> its own test file (or files, with a space between).
PURE = {
    "errors": "tests/test_errors.py",
    "servers": "tests/test_servers.py",
    "endpoint": "tests/test_endpoint.py",
    "answer": "tests/test_answer.py",
    "databases/knowledge": "tests/databases/test_knowledge.py",
    "databases/route": "tests/databases/test_route.py",
    "media/journal": "tests/media/test_journal.py",
    "media/listing": "tests/media/test_listing.py",
    "media/proof": "tests/media/test_proof.py",
    "drills/catalogue": "tests/drills/test_catalogue.py",
    "drills/judge": "tests/drills/test_judge.py",
    "names": "tests/test_names.py",
    "header_fields": "tests/test_header_fields.py",
    "fastcgi/options": "tests/fastcgi/test_options.py",
    "pooled": "tests/test_pooled.py",
    "shared_nothing": "tests/test_shared_nothing.py",
    "mistakes": "tests/test_shared_nothing.py",
    "suggestions": "tests/test_suggestions.py",
    "findings": "tests/media/test_findings.py",
    "media/findings": "tests/media/test_findings.py",
    "media/remedies": "tests/media/test_findings.py",
    "media/signing": "tests/media/test_signing.py",
    "media/integrity": "tests/media/test_integrity.py",
    "media/limits": "tests/media/test_limits.py",
    "media/protocol": "tests/media/test_protocol.py",
    "media/conditions": "tests/media/test_protocol.py",
    "media/digests": "tests/media/test_protocol.py",
    "content_types": "tests/media/test_protocol.py",
    "objects/direct": "tests/objects/test_direct.py",
    "moving/plan": "tests/moving/test_plan.py",
    "objects/bucket": "tests/objects/test_bucket.py",
    "objects/canonical": "tests/objects/test_sign.py",
    "objects/sign": "tests/objects/test_sign.py",
    "publish/references": "tests/publish/test_references.py",
    "publish/css": "tests/publish/test_css.py",
    "publish/javascript": "tests/publish/test_javascript.py",
    "publish/mentions": "tests/publish/test_mentions.py",
    "publish/html": "tests/publish/test_html.py",
    "publish/integrity": "tests/publish/test_integrity.py",
    "publish/graph": "tests/publish/test_graph.py",
    "databases/position": "tests/databases/test_position.py",
    "databases/statements": "tests/databases/test_statements.py",
    "databases/dialects": "tests/databases/test_statements.py",
    "publish/release": "tests/publish/test_release.py",
    "publish/forms": "tests/publish/test_release.py",
    "publish/encodings": "tests/publish/test_release.py",
    "publish/ledger": "tests/publish/test_ledger.py",
    "publish/difference": "tests/publish/test_difference.py",
    "publish/facts": "tests/publish/test_facts.py",
    "publish/policy": "tests/publish/test_policy.py",
    "publish/tables": "tests/publish/test_policy.py",
    "topology/change": CHANGES,
    "topology/changes": CHANGES,
    "topology/difference": CHANGES,
    "topology/contradictions": (
        "tests/topology/test_contradictions.py tests/topology/test_mounts.py"
    ),
    "topology/doors": CHANGES,
    "topology/moves": CHANGES,
    "topology/needs": "tests/topology/test_capacity.py",
    "topology/sizes": "tests/topology/test_capacity.py",
    "topology/sums": "tests/topology/test_capacity.py",
    "topology/weak_points": "tests/topology/test_capacity.py tests/topology/test_mounts.py",
    "topology/render/alerts": "tests/topology/test_alerts.py",
    "topology/render/readme": " ".join(
        f"tests/topology/test_{name}.py" for name in ("readme", "poolers", "dns", "mounts")
    ),
    "topology/ways": CHANGES,
    "topology/figure": " ".join(
        f"tests/topology/test_{name}.py" for name in ("figure", "poolers", "dns", "mounts")
    ),
    "topology/states": "tests/topology/test_states.py",
    "topology/deployment": "tests/topology/test_deployment.py",
    "topology/promotion": "tests/topology/test_promotion.py",
    "topology/presets": "tests/topology/test_presets.py",
    "topology/applications": FRONTS,
    "topology/front": FRONTS,
    "topology/render/apache_front": FRONTS,
    "topology/render/caddy": FRONTS,
    "topology/render/haproxy": FRONTS,
    "topology/render/nginx_front": FRONTS,
    "topology/model": TOPOLOGY,
    "topology/keys": TOPOLOGY,
    "topology/rules": TOPOLOGY,
    "topology/database": TOPOLOGY,
    "topology/balancer": TOPOLOGY,
    "topology/cache": TOPOLOGY,
    "topology/capacity": "tests/topology/test_capacity.py",
    "topology/pooler": "tests/topology/test_poolers.py",
    "topology/mounts": "tests/topology/test_mounts.py",
    "topology/render/mounts": "tests/topology/test_mounts.py",
    "topology/render/pgbouncer": "tests/topology/test_poolers.py",
    "topology/dns": "tests/topology/test_dns.py",
    "topology/zones": "tests/topology/test_dns.py",
    "topology/render/bind": "tests/topology/test_dns.py",
    "topology/render/dnsmasq": "tests/topology/test_dns.py",
    "topology/worker": "tests/topology/test_workers.py",
    "topology/objects": TOPOLOGY,
    "topology/agreement": TOPOLOGY,
    "topology/app": TOPOLOGY,
    "topology/settings": (
        "tests/topology/test_settings.py tests/topology/test_store.py "
        "tests/topology/test_roles.py tests/topology/test_poolers.py tests/topology/test_mounts.py"
    ),
}


def main() -> int:
    """Check every module; return an exit code."""
    root = Path(__file__).parent.parent
    tests: dict[str, list[str]] = {}
    for module, test in PURE.items():
        tests.setdefault(test, []).append(f"*/src/outgrow/{module}.py")
    with ThreadPoolExecutor(os.cpu_count()) as several:
        covered = several.map(lambda item: _covered(root, *item), tests.items())
        failed = [test for test, whole in zip(tests, covered, strict=True) if not whole]
    if failed:
        print("Pure modules without full branch coverage; see above:", ", ".join(failed))
        return 1
    print(f"{len(PURE)} pure modules: 100 % branch coverage, each from its own test file.")
    return 0


def _covered(root: Path, test: str, modules: list[str]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        coverage = [sys.executable, "-m", "coverage"]
        environment = os.environ | {"COVERAGE_FILE": f"{folder}/data"}
        include = f"--include={','.join(modules)}"
        profile = "--hypothesis-profile=branches"
        pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", profile, *test.split()]
        for words in (
            [*coverage, "run", "--branch", include, *pytest],
            [*coverage, "report", "--show-missing", "--fail-under=100", include],
        ):
            done = subprocess.run(
                words, cwd=root, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(done.stdout, done.stderr)
                return False
    return True


if __name__ == "__main__":
    sys.exit(main())
