//! TLS, with rustls.

use std::{io, sync::Arc};

use enoki_core::{Error, ErrorKind, Result, Tls};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{self, CryptoProvider},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    },
};

use super::stream::Stream;

/// The settings for TLS with one host: versions and ciphers, trusted authorities, and the name to expect.
#[derive(Clone)]
pub(crate) struct Client {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Client {
    pub(crate) fn new(host: &str, tls: &Tls) -> Result<Self> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| unusable(format!("{host:?} is not a name that a certificate can have")))?;
        // Named here, so that no other part of the program decides which one is used.
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?;
        let builder = if tls.accepts_any_certificate() {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
        } else {
            builder.with_root_certificates(match tls.authorities() {
                Some(authorities) => given(authorities)?,
                None => the_platforms()?,
            })
        };
        let config = match tls.certificate() {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates("the client's certificate", chain)?;
                // The error is dropped, since it may quote the key.
                let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())
                    .map_err(|_| unusable("the client's private key is not in PEM"))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    unusable(match error {
                        rustls::Error::InconsistentKeys(_) => {
                            "the client's private key is not that of its certificate"
                        }
                        _ => "the client's certificate or private key cannot be used",
                    })
                })?
            }
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(crate) async fn connect(&self, socket: TcpStream) -> io::Result<Stream> {
        match self.connector.connect(self.name.clone(), socket).await {
            Ok(stream) => Ok(Stream::encrypted(stream)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the broker closed the connection during the TLS handshake",
            )),
            Err(error) => Err(error),
        }
    }
}

/// The authorities in a PEM text, and no others.
fn given(authorities: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("the authorities to trust", authorities)? {
        roots
            .add(authority)
            .map_err(|error| unusable(format!("an authority to trust is unusable: {error}")))?;
    }
    Ok(roots)
}

/// The authorities that this machine trusts. Those that cannot be parsed are left out, as other programs do:
/// most machines have a few that are too old for some parser.
fn the_platforms() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = match found.errors.first() {
            Some(error) => format!("the platform's authorities cannot be read: {error}"),
            None => "the platform has no authorities".to_owned(),
        };
        return Err(unusable(reason).remedy("install them, or name those to Tls::trust_only"));
    }
    Ok(roots)
}

/// The certificates in a PEM text, at least one. `what` names them in errors.
fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| unusable(format!("{what}: not in PEM")))?;
    if certificates.is_empty() {
        return Err(unusable(format!("{what}: no certificate in the PEM")));
    }
    Ok(certificates)
}

fn unusable(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, "set up TLS").because(reason)
}

/// Accepts any certificate. The program asked for it by a name that says so.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
