# Makes a guest fit to be a node. Variables come before.
ip route replace default via "$GATEWAY"
sysctl -qw net.ipv4.ip_forward=1
modprobe -a br_netfilter veth bridge nf_conntrack xt_conntrack xt_comment xt_mark xt_addrtype xt_nat \
  xt_MASQUERADE xt_statistic xt_multiport xt_tcpudp xt_recent ipt_REJECT nf_reject_ipv4 \
  iptable_nat iptable_filter iptable_mangle nfnetlink nf_conntrack_netlink
sysctl -qw net.bridge.bridge-nf-call-iptables=1
# This kernel has no nft nat: kube-proxy, kubelet and the CNI plugins need the
# legacy iptables.
for tool in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
  ln -sf /usr/sbin/xtables-legacy-multi /usr/sbin/$tool
done
# kubelet wants a clock speed and a topology, which this kernel does not tell.
sed 's/^bogomips/cpu MHz\t\t: 2500.000\nphysical id\t: 0\ncore id\t\t: 0\ncpu cores\t: 1\nbogomips/' \
  /proc/cpuinfo >/run/cpuinfo
mountpoint -q /proc/cpuinfo || mount --bind /run/cpuinfo /proc/cpuinfo
mkdir -p /etc/cni/net.d /var/lib/kubelet/volumeplugins /var/log/pods
cat >/etc/cni/net.d/10-lab.conflist <<Y
{"cniVersion": "1.0.0", "name": "lab", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
Y
