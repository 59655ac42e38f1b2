"""AdminService: the audit log."""

from __future__ import annotations

from memoro.v1 import admin_service_pb2 as pb
from memoro_core.audit.model import AuditFilter
from memoro_core.audit.service import AuditService
from memoro_core.ids import TenantId
from memoro_server.call import Call
from memoro_server.convert.audit import from_audit_event
from memoro_server.convert.pages import PageSpot
from memoro_server.convert.scalars import to_id, to_time


class AuditServicer:
    """The call of AdminService that reads what operators did."""

    def __init__(self, audit: AuditService) -> None:
        self._audit = audit

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, call: Call) -> pb.ListAuditEventsResponse:
        spot = PageSpot(request, call)
        event_filter = AuditFilter(
            tenant_id=TenantId(to_id(request.tenant_id, "tenant_id")) if request.tenant_id else None,
            method=request.method or None,
            at_from=to_time(request, "from_time"),
            until=to_time(request, "until_time"),
        )
        page = await self._audit.list(event_filter, size=spot.size, position=spot.position)
        return pb.ListAuditEventsResponse(
            events=[from_audit_event(event) for event in page.items], next_page_token=spot.token(page.next_position)
        )
