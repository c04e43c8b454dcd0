use super::*;

fn service(names: &[&'static str]) -> (Readiness, HealthService) {
    let (readiness, _) = Readiness::new(names);
    let health = HealthService {
        readiness: readiness.clone(),
        names: names.into(),
    };
    (readiness, health)
}

fn ask(name: &str) -> Request<HealthCheckRequest> {
    Request::new(HealthCheckRequest { service: name.into() })
}

async fn check(health: &HealthService, name: &str) -> ServingStatus {
    health.check(ask(name)).await.unwrap().into_inner().status()
}

#[tokio::test]
async fn serving_is_all_conditions_together() {
    let (readiness, health) = service(&["a.A", "b.B"]);
    assert_eq!(check(&health, "").await, ServingStatus::NotServing);
    let (kafka, model) = (readiness.condition("kafka"), readiness.condition("model"));
    kafka.ready();
    assert_eq!(check(&health, "a.A").await, ServingStatus::NotServing);
    model.ready();
    for name in ["", "a.A", "b.B"] {
        assert_eq!(check(&health, name).await, ServingStatus::Serving, "{name}");
    }
    assert!(readiness.is_ready() && readiness.reasons().is_empty());
    kafka.not_ready("the broker at x:1 does not answer");
    assert_eq!(check(&health, "b.B").await, ServingStatus::NotServing);
    assert_eq!(readiness.reasons(), ["kafka: the broker at x:1 does not answer"]);
}

#[tokio::test]
async fn after_draining_nothing_makes_it_ready() {
    let (readiness, health) = service(&["a.A"]);
    let kafka = readiness.condition("kafka");
    kafka.ready();
    readiness.drain();
    kafka.ready();
    assert_eq!(check(&health, "a.A").await, ServingStatus::NotServing);
    assert_eq!(readiness.reasons(), ["the process is leaving"]);
}

#[tokio::test]
async fn an_unknown_name_is_not_found_and_named() {
    let (_readiness, health) = service(&["a.A"]);
    let status = health.check(ask("c.C")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert_eq!(error::reason(&status).as_deref(), Some("SERVICE_UNKNOWN"));
    let mut watch = health.watch(ask("c.C")).await.unwrap().into_inner();
    assert_eq!(
        watch.next().await.unwrap().unwrap().status(),
        ServingStatus::ServiceUnknown
    );
}

#[tokio::test]
async fn a_watch_tells_changes_once_and_ends_with_the_process() {
    let (readiness, health) = service(&["a.A"]);
    let kafka = readiness.condition("kafka");
    let mut watch = health.watch(ask("a.A")).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    kafka.not_ready("another reason is no change");
    kafka.ready();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    readiness.drain();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(
        watch.next().await.unwrap().unwrap_err().code(),
        tonic::Code::Unavailable
    );
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn ready_is_waited_for() {
    let (readiness, _health) = service(&[]);
    let kafka = readiness.condition("kafka");
    let (waited, ()) = tokio::join!(readiness.ready(), async { kafka.ready() });
    assert_eq!(((), true), (waited, readiness.is_ready()));
}

#[tokio::test]
async fn every_name_is_listed() {
    let (readiness, health) = service(&["a.A", "b.B"]);
    let listed = async || {
        let statuses = health
            .list(Request::new(HealthListRequest {}))
            .await
            .unwrap()
            .into_inner()
            .statuses;
        let mut statuses: Vec<_> = statuses
            .into_iter()
            .map(|(name, answer)| (name, answer.status()))
            .collect();
        statuses.sort();
        statuses
    };
    let all = |status| ["", "a.A", "b.B"].map(|name| (name.to_owned(), status));
    assert_eq!(listed().await, all(ServingStatus::NotServing));
    readiness.condition("kafka").ready();
    assert_eq!(listed().await, all(ServingStatus::Serving));
}
