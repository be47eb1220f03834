"""Django views that call the Gather API, under ASGI and in the threads of WSGI.

In one terminal:

    gather-async fake-server --port 8800 --api-key qapi_try

In another (`pip install gather-async django uvicorn`), under ASGI:

    export GATHER_BASE_URL=http://127.0.0.1:8800 GATHER_API_KEY=qapi_try
    uvicorn django_view:asgi --port 8000

In a third, under WSGI, a thread for each request:

    export GATHER_BASE_URL=http://127.0.0.1:8800 GATHER_API_KEY=qapi_try
    python django_view.py runserver 8080 --noreload

In a fourth:

    curl -sSf http://127.0.0.1:8000/narrators
    curl -sSf http://127.0.0.1:8080/sync/narrators
    seq 8 | xargs -P 8 -I N curl -sSf http://127.0.0.1:8080/sync/narrators
"""

import sys
from functools import cache
from typing import Any

import django
from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import path

from gather_async import GatherClient, GatherError, QuotaWaitError

if not settings.configured:  # yours come from DJANGO_SETTINGS_MODULE
    settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["127.0.0.1"])


@cache
def gather() -> GatherClient:
    """Return the process's one client; it has a session for each event loop that uses it."""
    return GatherClient(max_wait=2.0)


async def narrators(_: HttpRequest) -> JsonResponse:
    """List the narrators: an async view, for ASGI."""
    return await _respond()


def narrators_in_a_thread(_: HttpRequest) -> JsonResponse:
    """List the narrators: a synchronous view, for WSGI and for code that can't await."""
    response: JsonResponse = async_to_sync(_respond)()
    return response


async def _respond() -> JsonResponse:
    try:
        found: list[dict[str, Any]] = [each.to_dict() async for each in gather().narrators.list()]
    except QuotaWaitError as error:  # nothing was sent: try again later
        retry_after = {"Retry-After": f"{error.wait:.0f}"}
        return JsonResponse({"error": str(error)}, status=503, headers=retry_after)
    except GatherError as error:
        return JsonResponse({"error": str(error)}, status=502)
    return JsonResponse({"narrators": found})


urlpatterns = [path("narrators", narrators), path("sync/narrators", narrators_in_a_thread)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
else:
    django.setup()
    asgi = get_asgi_application()
