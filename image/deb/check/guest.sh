#!/bin/bash
# Runs as root in the booted clean system, with the packages in $1: installs, starts, injures, upgrades, removes and
# purges them. Every line that begins with "==" is a claim; the first one that does not hold ends the run.
set -euo pipefail
packages=$1
cd "$packages"
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

claim() { echo "== $*"; }
fail() {
    echo "NOT SO: $*"
    systemctl --no-pager status bulla-box || true
    journalctl --no-pager -u bulla-box | tail -n 30
    exit 1
}
property() { systemctl show --value -p "$1" bulla-box; }
as_box() { runuser -u bulla -- "$@"; }
wait_for() { # seconds, words, command
    local left=$(($1 * 10)) words=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "$words"
        sleep 0.1
    done
}
restarts() { [ "$(property NRestarts)" -ge "$1" ] && systemctl --quiet is-active bulla-box; }
seal() { bulla seal "$1" --box https://localhost:8443 --ca /srv/desk/ca.pem --token-file /srv/desk/token; }
verify() { bulla verify "$1" "$1.seal" --trust /srv/desk/trust.json; }

claim "all packages install, with what they depend on and nothing else"
apt-get install -y -qq --no-install-recommends ./bulla_*.deb ./bulla-signer_*.deb ./bulla-box_*.deb ./bulla-fleet_*.deb >install.log 2>&1 || { cat install.log; exit 1; }
grep -A1 'next, name the fleet' install.log
claim "the user, its groups, the state directory and the configuration are there"
id bulla
id -nG bulla | grep -qw bulla-signer || fail "user bulla may not ask the signer"
if id -nG bulla | grep -qw tss; then fail "user bulla may open the TPM"; fi
id -nG bulla-signer | grep -qw tss || fail "user bulla-signer may not open the TPM"
[ "$(stat -c '%U:%G %a' /var/lib/bulla)" = "bulla:bulla 700" ] || fail "owner or mode of /var/lib/bulla"
[ "$(dpkg-query -W -f '${Conffiles}' bulla-box | wc -w)" = 2 ] || fail "box.toml is not a conffile"
[ -z "$(dpkg --verify bulla bulla-signer bulla-box bulla-fleet)" ] || fail "installed files differ from the packages"
claim "the service is enabled, and waits for init without failing"
systemctl --quiet is-enabled bulla-box || fail "not enabled"
[ "$(property ActiveState)/$(property ConditionResult)" = inactive/no ] || fail "it was started before init"

claim "the configuration as shipped is refused, because nobody named the fleet"
if words=$(bulla-box check-config 2>&1); then fail "it was accepted"; fi
echo "$words" | grep -q 'fleet' || fail "$words"
apt-get install -y -qq --no-install-recommends swtpm swtpm-tools libtss2-tcti-swtpm0 man-db bash-completion curl >tools.log 2>&1 || { cat tools.log; exit 1; }
edit_configuration() {
    sed -i -e 's/^# fleet = .*/fleet = "bank.example"/' /etc/bulla/box.toml
}
edit_configuration
bulla-box check-config

claim "root is told to be user bulla, instead of making files that the service cannot read"
if words=$(bulla-box init 2>&1); then fail "root was let in"; fi
echo "$words"
claim "init makes a box on a TPM, as user bulla"
mkdir -p /srv/tpm /srv/desk
swtpm_setup --tpm2 --tpmstate /srv/tpm --create-ek-cert --pcr-banks sha256 >/srv/tpm.log 2>&1 || { cat /srv/tpm.log; exit 1; }
systemd-run --quiet --unit=swtpm swtpm socket --tpm2 --tpmstate dir=/srv/tpm \
    --server type=tcp,port=2321,bindaddr=127.0.0.1 --ctrl type=tcp,port=2322,bindaddr=127.0.0.1 \
    --flags not-need-init,startup-clear
sleep 1
# The simulated TPM is behind TCP, which the signer must not have otherwise.
systemctl --quiet is-active bulla-signer || fail "the signer does not run"
mkdir -p /etc/systemd/system/bulla-signer.service.d
printf '[Service]\nExecStart=\nExecStart=/usr/bin/bulla-signer --tcti swtpm:host=127.0.0.1,port=2321\nPrivateNetwork=no\nIPAddressDeny=\nRestrictAddressFamilies=AF_INET\n' >/etc/systemd/system/bulla-signer.service.d/simulated.conf
systemctl daemon-reload
systemctl restart bulla-signer || fail "the signer does not start"
[ "$(stat -c '%U:%G %a' /run/bulla-signer/socket)" = "bulla-signer:bulla-signer 660" ] || fail "owner or mode of the socket"
as_box bulla-box init
cd /srv/desk
chown bulla:bulla .
as_box bulla-box ca export --out ca.pem
as_box bulla-box trust export --out trust.json
as_box bulla-box scanner add --name desk-1 2>/dev/null | sed 's/^token: //' >token

claim "start returns when the box is ready (Type=notify), as user bulla, with the watchdog on"
systemctl start bulla-box || fail "it does not start"
pid=$(property MainPID)
echo "Type=$(property Type) WatchdogUSec=$(property WatchdogUSec) NotifyAccess=$(property NotifyAccess)"
[ "$(ps -o user= -p "$pid" 2>/dev/null || stat -c %U "/proc/$pid")" = bulla ] || fail "it does not run as bulla"
grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' "/proc/$pid/status"
grep -E '^Max (open files|nice)' "/proc/$pid/limits"

echo "LimitNICE=$(property LimitNICE) LimitNOFILE=$(property LimitNOFILE)"
[ "$(property LimitNICE)" = 30 ] || fail "the writer may not run before others"

claim "a document is sealed and verified"
echo "a scanned contract" >scan.pdf
seal scan.pdf
verify scan.pdf
claim "a changed document is refused with exit code 3"
cp scan.pdf other.pdf && cp scan.pdf.seal other.pdf.seal && echo x >>other.pdf
code=0
verify other.pdf >/dev/null || code=$?
[ "$code" = 3 ] || fail "exit code $code"

claim "the signer alone reaches the TPM; killed, it is there again, and the box goes on with it"
journalctl --no-pager -u bulla-signer | grep 'is served at' || fail "the signer says nothing"
kill -9 "$(systemctl show --value -p MainPID bulla-signer)"
signer_back() { [ "$(systemctl show --value -p NRestarts bulla-signer)" -ge 1 ] && systemctl --quiet is-active bulla-signer; }
wait_for 30 "the signer was not started again" signer_back
attested() {
    date +%s%N >attested.pdf
    rm -f attested.pdf.seal
    bulla seal attested.pdf --wait attested --box https://localhost:8443 --ca ca.pem --token-file token | grep -q 'sealed, attested'
}
wait_for 60 "nothing is attested after the signer was killed" attested
if runuser -u nobody -- test -w /run/bulla-signer/socket; then fail "anybody may use the keys"; fi

claim "the journal has the box's lines with their fields"
journalctl --no-pager -o json -u bulla-box >journal.json
grep '"_SYSTEMD_UNIT":"bulla-box.service"' journal.json | grep '"TARGET"' | grep '"PRIORITY"' | grep -c '"CODE_FILE"' || fail "no structured fields"
journalctl --no-pager -u bulla-box | grep 'listens on' || fail "the journal does not say where it listens"
grep '"ORIGIN":"bank.example/' journal.json | grep '"ADDRESS":"0.0.0.0:8443"' | tail -n 1 || fail "fields of our own are lost"

claim "kill -9: systemd starts it again, old seals verify, new ones are made"
kill -9 "$pid"
wait_for 30 "it was not started again" restarts 1
verify scan.pdf >/dev/null
echo "after the kill" >second.pdf
seal second.pdf && verify second.pdf >/dev/null
echo "NRestarts=$(property NRestarts)"

claim "the watchdog: a box that answers it lives on, a frozen one is ended and started again"
mkdir -p /run/systemd/system/bulla-box.service.d
printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/bulla-box.service.d/short.conf
systemctl daemon-reload
systemctl restart bulla-box
pid=$(property MainPID)
sleep 8
[ "$(property MainPID)/$(property NRestarts)" = "$pid/0" ] || fail "it was ended although it answered"
kill -STOP "$pid"
wait_for 60 "the frozen box was not replaced" restarts 1
journalctl --no-pager -u bulla-box | grep -i 'watchdog' | tail -n 2
[ "$(property MainPID)" != "$pid" ] || fail "the frozen process is still there"
rm -r /run/systemd/system/bulla-box.service.d
systemctl daemon-reload
systemctl restart bulla-box

claim "the unit is sound"
systemd-analyze verify /lib/systemd/system/bulla-box.service || fail "systemd-analyze verify"
systemd-analyze security --no-pager --threshold=20 bulla-box.service >security.log || { cat security.log; fail "exposure above 2.0"; }
tail -n 1 security.log
grep '✗' security.log || true
mv /etc/systemd/system/bulla-signer.service.d /srv/simulated
systemctl daemon-reload
systemd-analyze verify /lib/systemd/system/bulla-signer.service || fail "systemd-analyze verify of the signer"
systemd-analyze security --no-pager --threshold=15 bulla-signer.service >security.log || { cat security.log; fail "exposure above 1.5"; }
tail -n 1 security.log
mv /srv/simulated /etc/systemd/system/bulla-signer.service.d
systemctl daemon-reload

claim "man pages are found and rendered, completions load"
for page in bulla bulla-seal bulla-signer bulla-box bulla-box-scanner-add; do
    man --warnings -P cat "$page" | grep -q NAME || fail "man $page"
done
bash -c '. /usr/share/bash-completion/bash_completion
    for program in bulla bulla-box; do _completion_loader "$program"; complete -p "$program"; done'

claim "an upgrade restarts a running box, and the log goes on"
pid=$(property MainPID)
apt-get install -y -qq --reinstall "$packages"/bulla-box_*.deb >upgrade.log 2>&1 || { cat upgrade.log; exit 1; }
[ "$(property MainPID)" != "$pid" ] && systemctl --quiet is-active bulla-box || fail "not restarted"
verify scan.pdf >/dev/null
echo "after the upgrade" >third.pdf
seal third.pdf && verify third.pdf >/dev/null
grep -q '^fleet = "bank.example"' /etc/bulla/box.toml || fail "the upgrade took the configuration away"
claim "an upgrade leaves a stopped box stopped"
systemctl stop bulla-box
[ "$(property Result)" = success ] || fail "the stop was not clean: $(property Result)"
apt-get install -y -qq --reinstall "$packages"/bulla-box_*.deb >upgrade.log 2>&1
[ "$(property ActiveState)" = inactive ] || fail "it was started"
systemctl start bulla-box

claim "removal stops it; purge takes the configuration and keeps the log"
apt-get remove -y -qq bulla-box >remove.log 2>&1 || { cat remove.log; exit 1; }
! pgrep -x bulla-box >/dev/null 2>&1 || fail "it still runs"
[ -e /etc/bulla/box.toml ] || fail "the removal took the configuration away"
apt-get purge -y -qq bulla-box >purge.log 2>&1 || { cat purge.log; exit 1; }
grep -A1 'stay in /var/lib/bulla' purge.log
[ ! -e /etc/bulla ] || fail "the purge left /etc/bulla"
[ -e /var/lib/bulla/box/identity.json ] || fail "the purge took the log away"
[ ! -e /usr/bin/bulla-box ] && [ ! -e /lib/systemd/system/bulla-box.service ] || fail "the purge left files"

claim "installed again, the box takes its old log up"
apt-get install -y -qq --no-install-recommends "$packages"/bulla-signer_*.deb "$packages"/bulla-box_*.deb >again.log 2>&1 || { cat again.log; exit 1; }
edit_configuration
systemctl reset-failed bulla-box || true
systemctl restart bulla-box || fail "it does not start on the old log"
echo "after the purge" >fourth.pdf
seal fourth.pdf && verify fourth.pdf >/dev/null && verify scan.pdf >/dev/null
claim "a fleet's root is made by the installed program, and its minutes verify"
bulla-fleet init --dir /srv/fleet --fleet bank.example >ceremony.log || { cat ceremony.log; exit 1; }
grep 'ONE CUSTODIAN' ceremony.log
bulla-fleet transcript /srv/fleet/transcript --trust /srv/fleet/trust.json >minutes.log || { cat minutes.log; exit 1; }
claim "a hub waits for its keys; then it starts as user bulla-hub, tells systemd, pulls the box and answers"
apt-get install -y -qq --no-install-recommends "$packages"/bulla-hub_*.deb >hub.log 2>&1 || { cat hub.log; exit 1; }
grep -A2 'next, name hub and boxes' hub.log
[ -z "$(dpkg --verify bulla-hub)" ] || fail "installed files differ from the package"
systemctl --quiet is-enabled bulla-hub || fail "the hub is not enabled"
[ "$(systemctl show --value -p ActiveState bulla-hub)/$(systemctl show --value -p ConditionResult bulla-hub)" = inactive/no ] || fail "it was started before it had keys"
[ "$(stat -c '%U:%G %a' /var/lib/bulla-hub)" = "bulla-hub:bulla-hub 700" ] || fail "owner or mode of /var/lib/bulla-hub"
as_hub() { runuser -u bulla-hub -- "$@"; }
if words=$(as_hub bulla-hub init 2>&1); then fail "a hub without a name was made"; fi
echo "$words"
sed -i -e 's/^# name = "hub-north"/name = "hub-north"/' -e 's/^# name = "hub.bank/name = "hub.bank/' /etc/bulla/hub.toml
cp /srv/desk/trust.json /etc/bulla/trust.json
cp /srv/desk/ca.pem /etc/bulla/box-ca.pem
chmod 644 /etc/bulla/trust.json /etc/bulla/box-ca.pem
cat >>/etc/bulla/hub.toml <<END
[[boxes]]
name = "here"
origin = "$(curl -s --cacert ca.pem https://localhost:8443/checkpoint | head -n 1)"
[[boxes.sources]]
url = "https://localhost:8443"
ca = "/etc/bulla/box-ca.pem"
END
as_hub bulla-hub init && as_hub bulla-hub keys
as_hub bulla-hub people add prometheus --role monitor >hub.token 2>/dev/null
as_hub cat /var/lib/bulla-hub/hub-tls.pem >hub.pem
systemctl start bulla-hub || { journalctl --no-pager -u bulla-hub | tail -n 20; fail "the hub does not start"; }
hub_pulled() { curl -s --cacert hub.pem -H "Authorization: Bearer $(cat hub.token)" https://localhost:8446/metrics | grep -q '^bulla_hub_box_entries{box="here"} [1-9]'; }
wait_for 60 "the hub has not pulled the box" hub_pulled
pid=$(systemctl show --value -p MainPID bulla-hub)
[ "$(stat -c %U "/proc/$pid")" = bulla-hub ] || fail "it does not run as bulla-hub"
journalctl --no-pager -o json -u bulla-hub | grep '"LISTENING"' | grep -q '"TARGET":"bulla_hub"' || fail "the hub's lines have no fields"
claim "kill -9 and a frozen hub: systemd starts it again"
mkdir -p /run/systemd/system/bulla-hub.service.d
printf '[Service]\nWatchdogSec=3\nRestartSec=1\n' >/run/systemd/system/bulla-hub.service.d/short.conf
systemctl daemon-reload
systemctl restart bulla-hub
hub_restarts() { [ "$(systemctl show --value -p NRestarts bulla-hub)" -ge "$1" ] && systemctl --quiet is-active bulla-hub; }
kill -9 "$(systemctl show --value -p MainPID bulla-hub)"
wait_for 60 "the killed hub was not started again" hub_restarts 1
kill -STOP "$(systemctl show --value -p MainPID bulla-hub)"
wait_for 90 "the frozen hub was not replaced" hub_restarts 2
wait_for 60 "the hub has not pulled again" hub_pulled
rm -r /run/systemd/system/bulla-hub.service.d
systemctl daemon-reload
claim "the hub's unit is sound; its purge keeps the archive"
systemd-analyze verify /lib/systemd/system/bulla-hub.service || fail "systemd-analyze verify"
systemd-analyze security --no-pager --threshold=20 bulla-hub.service >security.log || { cat security.log; fail "exposure above 2.0"; }
tail -n 1 security.log
man --warnings -P cat bulla-hub | grep -q NAME || fail "man bulla-hub"
apt-get purge -y -qq bulla-hub >purge.log 2>&1 || { cat purge.log; exit 1; }
grep -A1 'stay in /var/lib/bulla-hub' purge.log
[ -d /var/lib/bulla-hub/archive/logs ] || fail "the purge took the archive away"
[ ! -e /etc/bulla/hub.toml ] && [ -e /etc/bulla/box.toml ] || fail "the purge took too little or too much of /etc/bulla"
claim "all of it held"
