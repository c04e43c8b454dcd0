//! Requests to commands, refusing what is not acceptable with the field's name.

use millrace_api::ingest::v1 as api;
use millrace_events::{DocumentId, DocumentKey, Lane, RequestId, Revision, Tenant};
use millrace_rpc::error::invalid_field;
use tonic::Status;

use crate::accept::{Action, Command};
use crate::pipeline::media::MediaType;

/// Largest body of a document; larger ones need claim checks, which this build does not have.
pub const MAX_BODY_BYTES: usize = 1 << 20;

pub fn document(tenant: &str, document_id: &str) -> Result<DocumentKey, Status> {
    Ok(DocumentKey {
        tenant: Tenant::new(tenant).map_err(|e| invalid_field("tenant", "TENANT_INVALID", e.to_string()))?,
        document_id: DocumentId::new(document_id)
            .map_err(|e| invalid_field("document_id", "DOCUMENT_ID_INVALID", e.to_string()))?,
    })
}

/// 0 is none.
pub fn revision(number: i64) -> Result<Option<Revision>, Status> {
    if number == 0 {
        return Ok(None);
    }
    let revision = Revision::from_i64(number);
    let revision = revision.map_err(|e| invalid_field("revision", "REVISION_INVALID", e.to_string()))?;
    Ok(Some(revision))
}

fn request_id(text: &str) -> Result<Option<RequestId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let id = text.parse::<RequestId>();
    Ok(Some(id.map_err(|e| {
        invalid_field("request_id", "REQUEST_ID_INVALID", e.to_string())
    })?))
}

pub fn submit(request: api::SubmitDocumentRequest) -> Result<Command, Status> {
    let document = document(&request.tenant, &request.document_id)?;
    let request_id = request_id(&request.request_id)?;
    let media: MediaType = request
        .media_type
        .parse()
        .map_err(|e: crate::pipeline::media::UnsupportedMediaType| {
            invalid_field("media_type", "UNSUPPORTED_MEDIA_TYPE", e.to_string()).with("media_type", e.0)
        })?;
    let size = request.body.len();
    if size > MAX_BODY_BYTES {
        let message = format!("a body has at most {MAX_BODY_BYTES} bytes, this one has {size}");
        let rejection = invalid_field("body", "BODY_TOO_LARGE", message);
        return Err(rejection
            .with("size_bytes", size)
            .with("max_bytes", MAX_BODY_BYTES)
            .into());
    }
    if let Err(error) = std::str::from_utf8(&request.body) {
        let at = error.valid_up_to();
        let message = format!("{media} is UTF-8, this body is not at byte {at}");
        return Err(invalid_field("body", "BODY_NOT_UTF8", message).with("byte", at).into());
    }
    let lane = Lane::new(request.lane).map_err(|e| invalid_field("lane", "LANE_INVALID", e.to_string()))?;
    Ok(Command {
        document,
        action: Action::Upsert {
            body: request.body,
            media,
        },
        lane,
        request_id,
    })
}

pub fn delete(request: &api::DeleteDocumentRequest) -> Result<Command, Status> {
    Ok(Command {
        document: document(&request.tenant, &request.document_id)?,
        action: Action::Delete,
        lane: Lane::BASE,
        request_id: request_id(&request.request_id)?,
    })
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;

    fn request() -> api::SubmitDocumentRequest {
        api::SubmitDocumentRequest {
            tenant: "acme".into(),
            document_id: "a/b.md".into(),
            body: "grüße".into(),
            media_type: "text/markdown; charset=utf-8".into(),
            lane: "bulk".into(),
            request_id: "0B6F3F2A-4c38-4f0e-9a4b-3f1b8f7f2a11".into(),
        }
    }

    #[test]
    fn a_good_request_is_a_command() {
        let command = submit(request()).unwrap();
        assert_eq!(command.document.to_string(), "acme/a/b.md");
        assert_eq!(
            command.request_id.unwrap().to_string(),
            "0b6f3f2a-4c38-4f0e-9a4b-3f1b8f7f2a11"
        );
        let largest = api::SubmitDocumentRequest {
            body: vec![b'a'; MAX_BODY_BYTES],
            request_id: String::new(),
            ..request()
        };
        assert_eq!(submit(largest).unwrap().request_id, None);
        assert_eq!(
            (revision(0).unwrap(), revision(1 << 48).unwrap().map(Revision::get)),
            (None, Some(1 << 48))
        );
    }

    #[test]
    fn each_field_is_refused_by_name() {
        type Change = fn(&mut api::SubmitDocumentRequest);
        let rows: [(Change, &str, &str, &str); 8] = [
            (|r| r.lane = "Bulk".into(), "lane", "LANE_INVALID", "a-z"),
            (|r| r.tenant = "a/b".into(), "tenant", "TENANT_INVALID", "1 to 64"),
            (
                |r| r.document_id = String::new(),
                "document_id",
                "DOCUMENT_ID_INVALID",
                "512 bytes",
            ),
            (
                |r| r.document_id = "a\u{1}".into(),
                "document_id",
                "DOCUMENT_ID_INVALID",
                "byte 1",
            ),
            (
                |r| r.request_id = "7".into(),
                "request_id",
                "REQUEST_ID_INVALID",
                "UUID",
            ),
            (
                |r| r.media_type = "text/html".into(),
                "media_type",
                "UNSUPPORTED_MEDIA_TYPE",
                "text/html",
            ),
            (
                |r| r.body = vec![b'a'; MAX_BODY_BYTES + 1],
                "body",
                "BODY_TOO_LARGE",
                "1048577",
            ),
            (|r| r.body = b"ab\xff".to_vec(), "body", "BODY_NOT_UTF8", "byte 2"),
        ];
        for (change, field, reason, says) in rows {
            let mut request = request();
            change(&mut request);
            let status = submit(request).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert_eq!(status.get_details_error_info().unwrap().reason, reason);
            let violation = &status.get_details_bad_request().unwrap().field_violations[0];
            assert_eq!(violation.field, field);
            assert!(violation.description.contains(says), "{}", violation.description);
        }
        assert!(revision(7).is_err() && revision(-1).is_err());
    }
}
