//! Connections to other services.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// How long one attempt to connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// HTTP/2 pings of a connection that has calls in flight: gRPC servers of other teams refuse more than one in 5 minutes.
pub const PING_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// How long a ping may stay unanswered before the connection counts as dead.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// TCP's own probes are not seen by the server: they find a dead peer sooner.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// An address that is not `http://host:port`.
#[derive(Debug, thiserror::Error)]
#[error("`{address}` is not the address of a gRPC service: write http://HOST:PORT")]
pub struct InvalidAddress {
    /// What was given.
    pub address: String,
}

/// A channel to `address` (`http://host:port`), connected when first used and again whenever it is lost.
///
/// A call while the service is away fails with UNAVAILABLE. Calls have no time-out of their own: give each a deadline
/// with [`crate::deadline::set`]. Called within a tokio runtime.
pub fn channel(address: &str) -> Result<Channel, InvalidAddress> {
    Ok(endpoint(address)?.connect_lazy())
}

fn endpoint(address: &str) -> Result<Endpoint, InvalidAddress> {
    let invalid = || InvalidAddress {
        address: address.to_owned(),
    };
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| invalid())?;
    let uri = endpoint.uri();
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none() {
        return Err(invalid());
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_http_host_port() {
        for good in ["http://127.0.0.1:7701", "http://embedder:7702", "http://[::1]:7703"] {
            assert!(channel(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "embedder",
            "127.0.0.1:7701",
            "https://x:1",
            "http://",
            "http://x",
            "http://:7701",
            "unix:/x",
        ] {
            let error = channel(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")), "{error}");
        }
    }
}
