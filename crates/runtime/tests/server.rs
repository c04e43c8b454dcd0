//! A whole process's server over real connections.
// Clippy takes only `#[test]` functions for tests, not what they call.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use millrace_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use millrace_api::pipeline::v1::pipeline_service_server::{PipelineService, PipelineServiceServer};
use millrace_api::pipeline::v1::{GetPipelineRequest, PauseRequest, PauseResponse, ResumeRequest, ResumeResponse};
use millrace_rpc::{client, deadline, error};
use millrace_runtime::pipeline::Pipeline;
use millrace_runtime::readiness::{Condition, Readiness};
use millrace_runtime::server::{self, Server, ServerError};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

struct Running {
    address: std::net::SocketAddr,
    channel: Channel,
    shutdown: CancellationToken,
    served: JoinHandle<Result<(), ServerError>>,
    condition: Condition,
}

async fn start(routes: impl FnOnce(Readiness) -> Routes, drain: Duration) -> Running {
    let (listener, address) = server::bind("127.0.0.1:0").await.unwrap();
    let (readiness, health) = Readiness::new(&["millrace.pipeline.v1.PipelineService"]);
    let condition = readiness.condition("kafka");
    let shutdown = CancellationToken::new();
    let server = Server {
        listener,
        routes: routes(readiness.clone()),
        readiness,
        health,
        drain,
    };
    let served = tokio::spawn(server.serve(shutdown.clone()));
    let channel = client::channel(&format!("http://{address}")).unwrap();
    Running {
        address,
        channel,
        shutdown,
        served,
        condition,
    }
}

fn pipeline(readiness: Readiness) -> Routes {
    let pipeline = Pipeline {
        service: "millrace-test".into(),
        instance: "local-0".into(),
        stages: vec![],
        readiness,
    };
    Routes::new(pipeline.server())
}

async fn health(channel: &Channel) -> ServingStatus {
    let request = HealthCheckRequest {
        service: "millrace.pipeline.v1.PipelineService".into(),
    };
    HealthClient::new(channel.clone())
        .check(request)
        .await
        .unwrap()
        .into_inner()
        .status()
}

#[tokio::test]
async fn health_and_pipeline_follow_readiness() {
    let running = start(pipeline, server::DRAIN).await;
    let mut pipeline = PipelineServiceClient::new(running.channel.clone());
    let told = pipeline.get_pipeline(GetPipelineRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (told.service.as_str(), told.not_ready),
        ("millrace-test", vec!["kafka: not checked yet".to_owned()])
    );
    assert_eq!(health(&running.channel).await, ServingStatus::NotServing);
    running.condition.ready();
    assert_eq!(health(&running.channel).await, ServingStatus::Serving);
}

#[tokio::test]
async fn reflection_lists_ours_and_health_in_both_versions() {
    let running = start(pipeline, server::DRAIN).await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = ServerReflectionClient::new(running.channel.clone())
        .server_reflection_info(tokio_stream::once(request))
        .await;
    let answer = answers.unwrap().into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
    for name in [
        "millrace.ingest.v1.IngestService",
        "millrace.pipeline.v1.PipelineService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} is not in {names:?}");
    }

    use tonic_reflection::pb::v1alpha as old;
    let request = old::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(old::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = old::server_reflection_client::ServerReflectionClient::new(running.channel.clone());
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    assert!(answers.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_method_that_is_not_there_says_so_with_a_reason() {
    let running = start(|_| Routes::default(), server::DRAIN).await;
    let status = PipelineServiceClient::new(running.channel)
        .get_pipeline(GetPipelineRequest {})
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), error::reason(&status).as_deref()),
        (Code::Unimplemented, Some("METHOD_UNKNOWN"))
    );
}

/// Never answers, as a handler that waits for a dependency.
struct Waits;

#[tonic::async_trait]
impl PipelineService for Waits {
    async fn get_pipeline(
        &self,
        _: Request<GetPipelineRequest>,
    ) -> Result<Response<millrace_api::pipeline::v1::GetPipelineResponse>, Status> {
        std::future::pending().await
    }

    async fn pause(&self, _: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        unreachable!("nobody asks")
    }

    async fn resume(&self, _: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        unreachable!("nobody asks")
    }
}

fn waits(_: Readiness) -> Routes {
    Routes::new(PipelineServiceServer::new(Waits))
}

/// The client stops at its deadline and calls it by its name, whoever's timer was first.
#[tokio::test]
async fn a_deadline_is_called_by_its_name() {
    let running = start(waits, server::DRAIN).await;
    let mut request = Request::new(GetPipelineRequest {});
    deadline::set(&mut request, Duration::from_millis(50));
    let status = PipelineServiceClient::new(running.channel)
        .get_pipeline(request)
        .await
        .map_err(deadline::named)
        .unwrap_err();
    assert_eq!(
        (status.code(), error::reason(&status).as_deref()),
        (Code::DeadlineExceeded, Some("DEADLINE_EXCEEDED"))
    );
}

/// tonic's own timer stands around our layer and would answer CANCELLED. A bare HTTP/2 client, which has no timer of its
/// own, sees which of the two answered.
#[tokio::test]
async fn the_server_answers_an_expired_deadline_by_its_name() {
    let running = start(waits, server::DRAIN).await;
    let stream = tokio::net::TcpStream::connect(running.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..20 {
        let request = http::Request::post(format!(
            "http://{}/millrace.pipeline.v1.PipelineService/GetPipeline",
            running.address
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "3m")
        .body(())
        .unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        // An empty message: not compressed, no bytes.
        body.send_data(bytes::Bytes::from_static(&[0; 5]), true).unwrap();
        let response = response.await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(
            (status.code(), error::reason(&status).as_deref()),
            (Code::DeadlineExceeded, Some("DEADLINE_EXCEEDED"))
        );
    }
    connection.abort();
}

/// Panics, as only a mistake of ours does.
struct Panics;

#[tonic::async_trait]
impl PipelineService for Panics {
    async fn get_pipeline(
        &self,
        _: Request<GetPipelineRequest>,
    ) -> Result<Response<millrace_api::pipeline::v1::GetPipelineResponse>, Status> {
        panic!("secret detail")
    }

    async fn pause(&self, _: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        unreachable!("nobody asks")
    }

    async fn resume(&self, _: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        unreachable!("nobody asks")
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_connection_lives() {
    let running = start(|_| Routes::new(PipelineServiceServer::new(Panics)), server::DRAIN).await;
    let status = PipelineServiceClient::new(running.channel.clone())
        .get_pipeline(GetPipelineRequest {})
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), error::reason(&status).as_deref()),
        (Code::Internal, Some("HANDLER_PANICKED"))
    );
    assert!(!status.message().contains("secret"), "{status:?}");
    assert_eq!(health(&running.channel).await, ServingStatus::NotServing);
}

#[tokio::test]
async fn a_shutdown_tells_watchers_and_ends_at_once_when_nothing_is_in_flight() {
    let running = start(pipeline, Duration::from_secs(60)).await;
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = HealthClient::new(running.channel.clone())
        .watch(request)
        .await
        .unwrap()
        .into_inner();
    running.condition.ready();
    let mut next = async || {
        watch
            .next()
            .await
            .map(|answer| answer.map(|a: HealthCheckResponse| a.status()))
    };
    while next().await.unwrap().unwrap() != ServingStatus::Serving {}
    running.shutdown.cancel();
    assert_eq!(next().await.unwrap().unwrap(), ServingStatus::NotServing);
    assert_eq!(next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    running.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_does_not_end_cannot_hold_the_shutdown() {
    let running = start(waits, Duration::from_millis(100)).await;
    let mut client = PipelineServiceClient::new(running.channel.clone());
    let call = tokio::spawn(async move { client.get_pipeline(GetPipelineRequest {}).await });
    // Health answers on the same connection after the call was sent: the call is in flight then.
    assert_eq!(health(&running.channel).await, ServingStatus::NotServing);
    running.shutdown.cancel();
    running.served.await.unwrap().unwrap();
    call.abort();
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let (_listener, address) = server::bind("127.0.0.1:0").await.unwrap();
    let error = server::bind(&address.to_string()).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
    assert!(
        server::bind("nonsense")
            .await
            .unwrap_err()
            .to_string()
            .contains("HOST:PORT")
    );
}
