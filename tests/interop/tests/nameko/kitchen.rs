//! The service of ours: it consumes what nameko publishes, and publishes for nameko.

use std::sync::Arc;

use enoki::{
    Body, Broker, Failure, Publisher, Service, State,
    consume::Envelope,
    context::Context,
    message::{Message, Table},
    service::RunningService,
    topology::{BindingSpec, Destination, ExchangeKind, ExchangeSpec, QueueSpec, RouteSpec},
    transport::Change,
};
use enoki_interop::Checked;
use serde_json::Value as Json;
use tokio::sync::mpsc;

/// What a handler of ours got.
#[derive(Debug)]
pub(crate) struct Handled {
    pub(crate) body: Json,
    pub(crate) message: Arc<Message>,
    pub(crate) context: Context,
}

/// Names that both services agree on.
pub(crate) struct Names {
    /// nameko's service; ours is the same with `.kitchen`.
    pub(crate) service: String,
}

impl Names {
    pub(crate) fn kitchen(&self) -> String {
        format!("{}.kitchen", self.service)
    }

    fn exchange(&self, of: &str) -> Checked<ExchangeSpec> {
        Ok(ExchangeSpec::new(format!("{}.{of}", self.service), ExchangeKind::Topic)?)
    }

    /// nameko's events go to the exchange of the service that tells of them.
    fn events(&self, of: &str) -> Checked<ExchangeSpec> {
        Ok(ExchangeSpec::new(format!("{of}.events"), ExchangeKind::Topic)?)
    }

    /// Removes all that either service declared.
    pub(crate) async fn remove(&self, broker: &Broker) -> Checked {
        let (service, kitchen) = (&self.service, self.kitchen());
        for queue in [
            format!("{service}.archive"),
            format!("evt-{kitchen}-{EVENT}--{service}.hear"),
            format!("{service}.stove"),
            format!("{service}.ears"),
        ] {
            broker.apply(&Change::DeleteQueue(queue.try_into()?)).await?;
        }
        for exchange in [
            self.exchange("orders")?,
            self.exchange("receipts")?,
            self.events(service)?,
            self.events(&kitchen)?,
        ] {
            broker.delete_exchange(&exchange).await?;
        }
        Ok(())
    }
}

/// The type of the event that each tells the other of.
const EVENT: &str = "order.announced";

#[derive(Clone)]
struct Kitchen {
    receipts: Publisher<Json>,
    events: Publisher<Json>,
    /// What to publish besides the body.
    headers: Arc<std::sync::Mutex<Table>>,
    cooked: mpsc::Sender<Handled>,
    heard: mpsc::Sender<Handled>,
}

pub(crate) struct Running {
    service: RunningService,
    /// What [`cook`] got.
    pub(crate) cooked: mpsc::Receiver<Handled>,
    /// What [`listen`] got.
    pub(crate) heard: mpsc::Receiver<Handled>,
    headers: Arc<std::sync::Mutex<Table>>,
}

async fn cook(
    State(kitchen): State<Kitchen>,
    Body(body): Body<Json>,
    context: Context,
    envelope: Envelope,
) -> Result<(), Failure> {
    let headers = kitchen.headers.lock().map(|headers| headers.clone()).unwrap_or_default();
    let mut receipt = kitchen.receipts.message(&body)?;
    for (name, value) in headers {
        receipt = receipt.header(name, value)?;
    }
    receipt.publish().await?;
    kitchen.cooked.send(Handled { body, message: envelope.message, context }).await?;
    Ok(())
}

async fn listen(
    State(kitchen): State<Kitchen>,
    Body(body): Body<Json>,
    context: Context,
    envelope: Envelope,
) -> Result<(), Failure> {
    kitchen.events.publish(&body).await?;
    kitchen.heard.send(Handled { body, message: envelope.message, context }).await?;
    Ok(())
}

/// Starts it. nameko's service runs already, so that what this one publishes is routed.
pub(crate) async fn start(broker: Broker, names: &Names) -> Checked<Running> {
    let kitchen = names.kitchen();
    let receipts =
        broker.publisher(RouteSpec::new(&names.exchange("receipts")?, "receipt.made")?).await?;
    let events = broker.publisher(RouteSpec::new(&names.events(&kitchen)?, EVENT)?).await?;
    let queue = |name: &str, exchange: ExchangeSpec, key: &str| {
        let queue = QueueSpec::new(format!("{}.{name}", names.service))?;
        let binding = BindingSpec::new(&exchange, Destination::Queue(queue.name.clone()), key)?;
        Checked::Ok(queue.of::<Json>().bind(&exchange, binding))
    };
    let (tell_cooked, cooked) = mpsc::channel(1);
    let (tell_heard, heard) = mpsc::channel(1);
    let headers = Arc::default();
    let state = Kitchen {
        receipts,
        events,
        headers: Arc::clone(&headers),
        cooked: tell_cooked,
        heard: tell_heard,
    };
    let service = Service::new(kitchen, broker)
        .state(state)
        .consume(&queue("stove", names.exchange("orders")?, "order.*")?, cook)
        .consume(&queue("ears", names.events(&names.service)?, EVENT)?, listen)
        .start()
        .await?;
    Ok(Running { service, cooked, heard, headers })
}

impl Running {
    /// Says which headers of its own the next receipt is to have.
    pub(crate) fn publish_with(&self, headers: &Table) -> Checked {
        headers.clone_into(&mut *self.headers.lock().map_err(|_| "a handler panicked")?);
        Ok(())
    }

    pub(crate) async fn stop(self) -> Checked {
        Ok(self.service.stop(std::time::Duration::from_secs(10)).await?)
    }
}
