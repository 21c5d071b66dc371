# Makes a guest fit to be a node. Variables come before.
modprobe -a loop br_netfilter veth bridge nf_conntrack xt_conntrack xt_comment xt_mark xt_addrtype xt_nat \
  xt_MASQUERADE xt_statistic xt_multiport xt_tcpudp xt_recent ipt_REJECT nf_reject_ipv4 \
  iptable_nat iptable_filter iptable_mangle nfnetlink nf_conntrack_netlink
if [ -n "$ISOLATED" ]; then
  # As in a kind node: kubelet and all it starts have a network namespace of
  # their own, and the machine's own has iscsid.
  ip netns add kubelet
  ip link add br0 type bridge
  ip addr flush dev vec0
  ip link set vec0 master br0
  ip addr add "$ISOLATED/24" dev br0
  ip link add kubelet type veth peer name eth0 netns kubelet
  ip link set kubelet master br0 up
  ip link set br0 up
  ip -n kubelet link set lo up
  ip -n kubelet addr add "$ADDRESS/24" dev eth0
  ip -n kubelet link set eth0 up
  enter='nsenter --net=/run/netns/kubelet'
fi
$enter ip route replace default via "$GATEWAY"
for route in $ROUTES; do
  $enter ip route replace "${route%=*}" via "${route#*=}"
done
$enter sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
# This kernel has no nft nat: kube-proxy, kubelet and the CNI plugins need the
# legacy iptables.
for tool in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
  ln -sf /usr/sbin/xtables-legacy-multi /usr/sbin/$tool
done
# kubelet wants a clock speed and a topology, which this kernel does not tell.
sed 's/^bogomips/cpu MHz\t\t: 2500.000\nphysical id\t: 0\ncore id\t\t: 0\ncpu cores\t: 1\nbogomips/' \
  /proc/cpuinfo >/run/cpuinfo
mountpoint -q /proc/cpuinfo || mount --bind /run/cpuinfo /proc/cpuinfo
# udev is left what volumes need of it: its work for the network devices of pods, for
# sound and the like is a tenth of what a node has to do.
for rules in /lib/udev/rules.d/*; do
  case ${rules##*/} in
    50-udev-default.rules | 5[56]-dm* | 60-block.rules | 60-persistent-storage.rules | 60-persistent-storage-dm.rules | 95-dm-notify.rules | 99-systemd.rules) ;;
    *) ln -sf /dev/null "/etc/udev/rules.d/${rules##*/}" ;;
  esac
done
udevadm control --reload
mkdir -p /etc/cni/net.d /var/lib/kubelet/volumeplugins /var/log/pods
cat >/etc/cni/net.d/10-lab.conflist <<Y
{"cniVersion": "1.0.0", "name": "lab", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
Y
