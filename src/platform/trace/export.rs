//! Export of spans to an OpenTelemetry collector: OTLP over HTTP, in protobuf.
//!
//! Off unless the standard variables ask for it: `OTEL_EXPORTER_OTLP_ENDPOINT` or
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, and neither `OTEL_SDK_DISABLED=true` nor
//! `OTEL_TRACES_EXPORTER=none`. The others (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_…`, time-outs) are the SDK's. At
//! most 2,048 spans wait (`OTEL_BSP_MAX_QUEUE_SIZE`). Further spans are dropped: the program does
//! not wait for the collector.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Subscriber, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use super::TARGET;

/// How long one export may take, whatever `OTEL_EXPORTER_OTLP_TIMEOUT` says. Only the next export
/// waits for it.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last spans may take when the program ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The exporter; it sends the remaining spans when it is dropped.
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// The exporter that the environment asks for, if it asks for one.
    pub fn from_environment() -> anyhow::Result<Option<Exporter>> {
        let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let is_disabled = said("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let exporter = said("OTEL_TRACES_EXPORTER").unwrap_or_else(|| "otlp".to_owned());
        if is_disabled || exporter == "none" || !endpoint.iter().any(|name| said(name).is_some()) {
            return Ok(None);
        }
        if exporter != "otlp" {
            bail!("OTEL_TRACES_EXPORTER is {exporter:?}: it must be otlp or none");
        }
        for name in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] {
            if let Some(other) = said(name).filter(|protocol| protocol != "http/protobuf") {
                bail!("{name} is {other:?}: only http/protobuf is supported");
            }
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(Http::new())
            .build()
            .context("the OTEL_EXPORTER_OTLP_… variables are not understood")?;
        let mut resource = Resource::builder();
        if said("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("groundstation");
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Some(Exporter(provider)))
    }

    /// A layer that takes the spans of [`TARGET`] and nothing else.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("groundstation"))
            .with_location(false)
            .with_threads(false)
            .with_filter(
                filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET)
                    .with_max_level_hint(LevelFilter::INFO),
            )
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            warn!(%error, "the last spans were not sent");
        }
    }
}

/// The program's HTTP client. It blocks, on the exporter's own thread.
struct Http {
    agent: ureq::Agent,
    /// Whether the last export failed: a change is logged once.
    fails: AtomicBool,
}

impl Http {
    fn new() -> Http {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(EXPORT_TIMEOUT))
            .build();
        Http { agent: ureq::Agent::new_with_config(config), fails: AtomicBool::new(false) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = response.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }

    fn tell(&self, failure: Option<String>) {
        match failure {
            Some(reason) if !self.fails.swap(true, Ordering::Relaxed) => {
                warn!(%reason, "spans cannot be exported");
            }
            None if self.fails.swap(false, Ordering::Relaxed) => info!("spans are exported again"),
            _ => {}
        }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

#[async_trait::async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request);
        self.tell(match &answer {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("the collector answers {}", response.status())),
            Err(error) => Some(error.to_string()),
        });
        Ok(answer?)
    }
}
