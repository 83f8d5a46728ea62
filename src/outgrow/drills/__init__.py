"""Fault drills: the site of a topology file under load, while one server at a time is broken.

The laws:

1. What was promised is judged, what it cost is reported. A failed request is no broken promise;
   an acknowledged row that is gone is one.
2. Who judges does not ask whom he judges: what was acknowledged is written down outside the site,
   when its answer has come.
3. A client sends no POST twice. What was carried out twice was repeated by the site.
4. The load does not wait for answers (an "open loop"): a site that stands still is asked on,
   as visitors would.
5. A drill does what an operator would do, and nothing that mends more than he would.

Django is imported in `site` alone, which runs in the processes of the site that is drilled.
"""
