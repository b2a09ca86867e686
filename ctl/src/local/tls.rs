//! The local cluster's own certificate authority: one certificate for each process and one for the admin.
//!
//! What exists is kept, so that a cluster brought up again trusts what it trusted before. Keys are written
//! for their owner only, and before the certificate that makes them useful.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::layout::{Layout, Member, Role};

/// The name by which every process is addressed; its URI name decides who it is.
const SERVER_NAME: &str = dray_proto::tls::SERVER_NAME;

/// Makes the CA and every certificate that is missing.
pub(crate) fn ensure_certificates(layout: &Layout) -> Result<()> {
    let authority = ensure_authority(&layout.dir.join("ca"))?;
    for member in layout.members().into_iter().filter(|member| member.has_process()) {
        let names = names_of(member)?;
        let dir = layout.member_dir(member).join("tls");
        authority.ensure_certificate(&dir, &member.to_string(), names)?;
    }
    let admin = vec![uri("dray://user/admin")?];
    authority.ensure_certificate(&layout.dir.join("admin"), "admin", admin)
}

/// A CA that can sign.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn ensure_certificate(&self, dir: &Path, name: &str, names: Vec<SanType>) -> Result<()> {
        if dir.join("cert.pem").exists() {
            return Ok(());
        }
        let key = KeyPair::generate()?;
        let mut params = valid_params(name);
        params.subject_alt_names = names;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("sign {name}"))?;
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        write(&dir.join("ca.pem"), &self.certificate, 0o644)?;
        write(&dir.join("key.pem"), &key.serialize_pem(), 0o600)?;
        write(&dir.join("cert.pem"), &certificate.pem(), 0o644)
    }
}

fn ensure_authority(dir: &Path) -> Result<Authority> {
    let (certificate_file, key_file) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
    if certificate_file.exists() {
        let read = |file: &Path| fs::read_to_string(file).with_context(|| format!("read {}", file.display()));
        let certificate = read(&certificate_file)?;
        let key = KeyPair::from_pem(&read(&key_file)?)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        return Ok(Authority { issuer, certificate });
    }
    let key = KeyPair::generate()?;
    let mut params = valid_params("dray local CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).context("sign the CA")?.pem();
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    write(&key_file, &key.serialize_pem(), 0o600)?;
    write(&certificate_file, &certificate, 0o644)?;
    Ok(Authority { issuer: Issuer::new(params, key), certificate })
}

/// Valid for longer than any local cluster lives, and from long ago, so that a wrong clock does no harm.
fn valid_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn names_of(member: Member) -> Result<Vec<SanType>> {
    let identity = match member.role {
        Role::Scheduler => format!("dray://scheduler/{}", member.number),
        Role::Node => format!("dray://node/{member}"),
        Role::Client => format!("dray://user/{member}"),
    };
    let dns = |name: &str| anyhow::Ok(SanType::DnsName(name.try_into()?));
    let ip = SanType::IpAddress(member.underlay().into());
    Ok(vec![uri(&identity)?, dns(SERVER_NAME)?, dns(&member.to_string())?, ip])
}

fn uri(identity: &str) -> Result<SanType> {
    Ok(SanType::URI(identity.try_into()?))
}

/// Writes a whole file with this mode, or none.
fn write(file: &Path, text: &str, mode: u32) -> Result<()> {
    let fresh = file.with_extension("new");
    let written = || -> std::io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(mode);
        options.open(&fresh)?.write_all(text.as_bytes())?;
        fs::rename(&fresh, file)
    };
    written().with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_proto::tls::{Credentials, Files};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn certificates_are_made_once_and_load() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { dir: dir.path().to_owned(), schedulers: 1, nodes: 1 };
        ensure_certificates(&layout).unwrap();
        let tls = layout.member_dir(Member::node(1)).join("tls");
        let file = |name: &str| tls.join(name);
        Credentials::load(&Files { ca: file("ca.pem"), cert: file("cert.pem"), key: file("key.pem") })
            .unwrap();
        let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
        for key in [file("key.pem"), dir.path().join("ca/ca-key.pem"), dir.path().join("admin/key.pem")] {
            assert_eq!(mode(&key), 0o600, "{}", key.display());
        }
        let before = fs::read(file("cert.pem")).unwrap();
        // A node that joins later is signed by the CA that is there.
        let grown = Layout { nodes: 2, ..layout.clone() };
        ensure_certificates(&grown).unwrap();
        assert_eq!(fs::read(file("cert.pem")).unwrap(), before);
        let second = grown.member_dir(Member::node(2)).join("tls/ca.pem");
        assert_eq!(fs::read(second).unwrap(), fs::read(file("ca.pem")).unwrap());
    }
}
