package kernel

// The names and numbers of linux/ip_vs.h. The comment behind a constant is its
// name there; TestHeader compares both.

const (
	familyName    = "IPVS" // IPVS_GENL_NAME
	familyVersion = 1      // IPVS_GENL_VERSION
	schedulerMax  = 16     // IP_VS_SCHEDNAME_MAXLEN
	engineMax     = 16     // IP_VS_PENAME_MAXLEN
	interfaceMax  = 16     // IP_VS_IFNAME_MAXLEN
	forwardMask   = 0x7    // IP_VS_CONN_F_FWD_MASK
)

// Commands.
const (
	cmdNewService = 1  // IPVS_CMD_NEW_SERVICE
	cmdSetService = 2  // IPVS_CMD_SET_SERVICE
	cmdDelService = 3  // IPVS_CMD_DEL_SERVICE
	cmdGetService = 4  // IPVS_CMD_GET_SERVICE
	cmdNewDest    = 5  // IPVS_CMD_NEW_DEST
	cmdSetDest    = 6  // IPVS_CMD_SET_DEST
	cmdDelDest    = 7  // IPVS_CMD_DEL_DEST
	cmdGetDest    = 8  // IPVS_CMD_GET_DEST
	cmdNewDaemon  = 9  // IPVS_CMD_NEW_DAEMON
	cmdDelDaemon  = 10 // IPVS_CMD_DEL_DAEMON
	cmdGetDaemon  = 11 // IPVS_CMD_GET_DAEMON
	cmdSetConfig  = 12 // IPVS_CMD_SET_CONFIG
	cmdGetConfig  = 13 // IPVS_CMD_GET_CONFIG
	cmdGetInfo    = 15 // IPVS_CMD_GET_INFO
	cmdZero       = 16 // IPVS_CMD_ZERO
	cmdFlush      = 17 // IPVS_CMD_FLUSH
)

// Attributes of a message.
const (
	attrService       = 1 // IPVS_CMD_ATTR_SERVICE
	attrDest          = 2 // IPVS_CMD_ATTR_DEST
	attrDaemon        = 3 // IPVS_CMD_ATTR_DAEMON
	attrTimeoutTCP    = 4 // IPVS_CMD_ATTR_TIMEOUT_TCP
	attrTimeoutTCPFin = 5 // IPVS_CMD_ATTR_TIMEOUT_TCP_FIN
	attrTimeoutUDP    = 6 // IPVS_CMD_ATTR_TIMEOUT_UDP
)

// Attributes of the answer to cmdGetInfo.
const (
	infoVersion     = 1 // IPVS_INFO_ATTR_VERSION
	infoConnTabSize = 2 // IPVS_INFO_ATTR_CONN_TAB_SIZE
)

// Attributes of a service.
const (
	svcAF        = 1  // IPVS_SVC_ATTR_AF
	svcProtocol  = 2  // IPVS_SVC_ATTR_PROTOCOL
	svcAddr      = 3  // IPVS_SVC_ATTR_ADDR
	svcPort      = 4  // IPVS_SVC_ATTR_PORT
	svcFWMark    = 5  // IPVS_SVC_ATTR_FWMARK
	svcSchedName = 6  // IPVS_SVC_ATTR_SCHED_NAME
	svcFlags     = 7  // IPVS_SVC_ATTR_FLAGS
	svcTimeout   = 8  // IPVS_SVC_ATTR_TIMEOUT
	svcNetmask   = 9  // IPVS_SVC_ATTR_NETMASK
	svcStats     = 10 // IPVS_SVC_ATTR_STATS
	svcPEName    = 11 // IPVS_SVC_ATTR_PE_NAME
	svcStats64   = 12 // IPVS_SVC_ATTR_STATS64
)

// Bits of svcFlags. The HASHED bit, 0x2, is the kernel's own: it is always set in
// what it reports.
const (
	flagPersistent = 0x01 // IP_VS_SVC_F_PERSISTENT
	flagOnePacket  = 0x04 // IP_VS_SVC_F_ONEPACKET
	flagSched1     = 0x08 // IP_VS_SVC_F_SCHED1
	flagSched2     = 0x10 // IP_VS_SVC_F_SCHED2
	flagSched3     = 0x20 // IP_VS_SVC_F_SCHED3
)

// Attributes of a destination.
const (
	destAddr         = 1  // IPVS_DEST_ATTR_ADDR
	destPort         = 2  // IPVS_DEST_ATTR_PORT
	destFwdMethod    = 3  // IPVS_DEST_ATTR_FWD_METHOD
	destWeight       = 4  // IPVS_DEST_ATTR_WEIGHT
	destUThresh      = 5  // IPVS_DEST_ATTR_U_THRESH
	destLThresh      = 6  // IPVS_DEST_ATTR_L_THRESH
	destActiveConns  = 7  // IPVS_DEST_ATTR_ACTIVE_CONNS
	destInactConns   = 8  // IPVS_DEST_ATTR_INACT_CONNS
	destPersistConns = 9  // IPVS_DEST_ATTR_PERSIST_CONNS
	destStats        = 10 // IPVS_DEST_ATTR_STATS
	destAddrFamily   = 11 // IPVS_DEST_ATTR_ADDR_FAMILY
	destStats64      = 12 // IPVS_DEST_ATTR_STATS64
	destTunType      = 13 // IPVS_DEST_ATTR_TUN_TYPE
	destTunPort      = 14 // IPVS_DEST_ATTR_TUN_PORT
	destTunFlags     = 15 // IPVS_DEST_ATTR_TUN_FLAGS
)

// Attributes of a sync daemon.
const (
	daemonState       = 1 // IPVS_DAEMON_ATTR_STATE
	daemonMcastIfn    = 2 // IPVS_DAEMON_ATTR_MCAST_IFN
	daemonSyncID      = 3 // IPVS_DAEMON_ATTR_SYNC_ID
	daemonSyncMaxLen  = 4 // IPVS_DAEMON_ATTR_SYNC_MAXLEN
	daemonMcastGroup  = 5 // IPVS_DAEMON_ATTR_MCAST_GROUP
	daemonMcastGroup6 = 6 // IPVS_DAEMON_ATTR_MCAST_GROUP6
	daemonMcastPort   = 7 // IPVS_DAEMON_ATTR_MCAST_PORT
	daemonMcastTTL    = 8 // IPVS_DAEMON_ATTR_MCAST_TTL
)

// Attributes of counters.
const (
	statsConns    = 1  // IPVS_STATS_ATTR_CONNS
	statsInPkts   = 2  // IPVS_STATS_ATTR_INPKTS
	statsOutPkts  = 3  // IPVS_STATS_ATTR_OUTPKTS
	statsInBytes  = 4  // IPVS_STATS_ATTR_INBYTES
	statsOutBytes = 5  // IPVS_STATS_ATTR_OUTBYTES
	statsCPS      = 6  // IPVS_STATS_ATTR_CPS
	statsInPPS    = 7  // IPVS_STATS_ATTR_INPPS
	statsOutPPS   = 8  // IPVS_STATS_ATTR_OUTPPS
	statsInBPS    = 9  // IPVS_STATS_ATTR_INBPS
	statsOutBPS   = 10 // IPVS_STATS_ATTR_OUTBPS
)
