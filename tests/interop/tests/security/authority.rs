//! Certificates of our own.

use enoki_interop::Checked;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, date_time_ymd,
};

/// Who signs certificates.
pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both in PEM.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A certificate that is signed by itself.
pub(crate) fn self_signed(names: &[&str]) -> Checked<Identity> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(names)?.self_signed(&key)?.pem();
    Ok(Identity { certificate, key: key.serialize_pem() })
}

impl Authority {
    /// Named like all others.
    pub(crate) fn new() -> Checked<Self> {
        Self::named("An authority of our own")
    }

    pub(crate) fn named(name: &str) -> Checked<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.self_signed(&key)?, issuer: Issuer::new(params, key) })
    }

    /// Its own certificate, for those who are to trust it.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for these names and addresses.
    pub(crate) fn sign(&self, names: &[&str]) -> Checked<Identity> {
        self.sign_with(names, |_| {})
    }

    /// One that was valid once.
    pub(crate) fn sign_expired(&self, names: &[&str]) -> Checked<Identity> {
        self.sign_with(names, |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        })
    }

    /// One for a client of this name.
    pub(crate) fn sign_for(&self, client: &str) -> Checked<Identity> {
        self.sign_with(&[], |params| params.distinguished_name.push(DnType::CommonName, client))
    }

    fn sign_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Checked<Identity> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "another");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}
