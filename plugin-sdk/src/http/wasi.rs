//! HTTP over `wasi:http`, by hand: the crates that do the same add 150 to 220 KB to a plugin.
//!
//! Error codes are named by hand, too: their derived `Debug` alone would cost 27 KB.

use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, Scheme,
};
use wasip2::io::poll::{self, Pollable};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use super::{Error, Request, Response, split};

/// As much as one read asks for.
const CHUNK: u64 = 64 * 1024;

pub(super) fn send(request: Request) -> Result<Response, Error> {
    let deadline = Deadline::new(request.timeout);
    let outgoing = prepare(&request)?;
    let body = request.body.as_ref().map(|_| outgoing.body());
    let waiting = outgoing_handler::handle(outgoing, None).map_err(|code| named(&code))?;
    if let (Some(Ok(body)), Some(bytes)) = (body, &request.body) {
        upload(body, bytes, &deadline)?;
    }
    let response = answer(&waiting, &deadline)?;
    let (status, headers) = (response.status(), response.headers().entries());
    Ok(Response { status, headers, body: Body { response, deadline } })
}

/// The body of an answer, still on its way.
pub(super) struct Body {
    response: IncomingResponse,
    deadline: Deadline,
}

impl Body {
    pub(super) fn read(self, max: usize) -> Result<Vec<u8>, Error> {
        let gone = |()| Error::Other("the body of the answer is gone".to_owned());
        let body: IncomingBody = self.response.consume().map_err(gone)?;
        let stream: InputStream = body.stream().map_err(gone)?;
        let ready = stream.subscribe();
        let mut bytes = Vec::new();
        while bytes.len() < max {
            let wanted = CHUNK.min((max - bytes.len()) as u64);
            match stream.read(wanted) {
                Ok(chunk) if chunk.is_empty() => self.deadline.wait(&ready)?,
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(StreamError::Closed) => break,
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(Error::Other(error.to_debug_string()));
                }
            }
        }
        Ok(bytes)
    }
}

fn prepare(request: &Request) -> Result<OutgoingRequest, Error> {
    let refused = |what: &str| Error::Other(format!("cannot send the request: {what} is not allowed"));
    let (scheme, authority, path) = split(&request.url)?;

    let headers = Fields::new();
    for (name, value) in &request.headers {
        headers.append(name, value.as_bytes()).map_err(|_| refused(&format!("header `{name}`")))?;
    }
    // Without it the body would be sent in chunks, which not every receiver takes.
    if let Some(body) = &request.body {
        let length = body.len().to_string();
        headers
            .append("content-length", length.as_bytes())
            .map_err(|_| refused("header `content-length`"))?;
    }

    let outgoing = OutgoingRequest::new(headers);
    let method = match request.method.as_str() {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "HEAD" => Method::Head,
        "PATCH" => Method::Patch,
        "OPTIONS" => Method::Options,
        other => Method::Other(other.to_owned()),
    };
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    outgoing.set_method(&method).map_err(|()| refused("its method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| refused("its scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(|()| refused("the host in its URL"))?;
    outgoing.set_path_with_query(Some(&path)).map_err(|()| refused("the path in its URL"))?;
    Ok(outgoing)
}

/// Sends the body. A server may answer before it has read all of it; then the rest stays here, and
/// what it answered counts.
fn upload(body: OutgoingBody, bytes: &[u8], deadline: &Deadline) -> Result<(), Error> {
    let Ok(stream) = body.write() else { return Ok(()) };
    let complete = write(&stream, bytes, deadline)?;
    drop(stream);
    if complete {
        OutgoingBody::finish(body, None).map_err(|code| named(&code))?;
    }
    Ok(())
}

/// Whether all of it was taken.
fn write(stream: &OutputStream, mut bytes: &[u8], deadline: &Deadline) -> Result<bool, Error> {
    let ready = stream.subscribe();
    while !bytes.is_empty() {
        let Ok(room) = stream.check_write() else { return Ok(false) };
        let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
        if now.is_empty() {
            deadline.wait(&ready)?;
        } else if stream.write(now).is_err() {
            return Ok(false);
        }
        bytes = later;
    }
    Ok(true)
}

fn answer(waiting: &FutureIncomingResponse, deadline: &Deadline) -> Result<IncomingResponse, Error> {
    let ready = waiting.subscribe();
    loop {
        match waiting.get() {
            None => deadline.wait(&ready)?,
            Some(Ok(Ok(response))) => return Ok(response),
            Some(Ok(Err(code))) => return Err(named(&code)),
            Some(Err(())) => return Err(Error::Other("the answer was taken already".to_owned())),
        }
    }
}

/// When the author's own patience ends; the agent's limit lies behind it.
struct Deadline(Option<Pollable>);

impl Deadline {
    fn new(limit: Option<std::time::Duration>) -> Self {
        let nanoseconds = |limit: std::time::Duration| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Self(limit.map(|limit| monotonic_clock::subscribe_duration(nanoseconds(limit))))
    }

    fn wait(&self, for_what: &Pollable) -> Result<(), Error> {
        let Some(end) = &self.0 else {
            for_what.block();
            return Ok(());
        };
        if poll::poll(&[for_what, end]).contains(&0) {
            Ok(())
        } else {
            Err(Error::TimedOut("no answer within the request's timeout".to_owned()))
        }
    }
}

fn named(code: &ErrorCode) -> Error {
    let text = match code {
        ErrorCode::HttpRequestDenied => {
            let text = "this origin is not granted: the plugin's manifest and the agent's config both have to name it";
            return Error::Denied(text.to_owned());
        }
        ErrorCode::DestinationIpProhibited => {
            return Error::Denied("the address of this host is not allowed".to_owned());
        }
        ErrorCode::DnsTimeout => {
            return Error::TimedOut("looking up the host's name took too long".to_owned());
        }
        ErrorCode::ConnectionTimeout => return Error::TimedOut("connecting took too long".to_owned()),
        ErrorCode::HttpResponseTimeout | ErrorCode::ConnectionReadTimeout => {
            return Error::TimedOut("the answer took too long".to_owned());
        }
        ErrorCode::ConnectionWriteTimeout => return Error::TimedOut("sending took too long".to_owned()),
        ErrorCode::DnsError(_) => "the host's name could not be resolved",
        ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpUnroutable => "the host cannot be reached",
        ErrorCode::ConnectionRefused => "the connection was refused",
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => {
            "the server ended the connection before the answer was complete"
        }
        ErrorCode::ConnectionLimitReached => "too many connections",
        ErrorCode::TlsCertificateError => "the server's certificate is not valid",
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => "the TLS handshake failed",
        ErrorCode::HttpRequestBodySize(_) => "the request's body is larger than the limit",
        ErrorCode::HttpResponseBodySize(_) => "the answer's body is larger than the limit",
        ErrorCode::HttpRequestUriInvalid => "cannot use the URL",
        ErrorCode::HttpProtocolError => "the server does not speak HTTP",
        ErrorCode::InternalError(Some(text)) => text,
        _ => "the request failed",
    };
    Error::Other(text.to_owned())
}
