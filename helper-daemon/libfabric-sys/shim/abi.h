/* The part of libfabric's binary interface that the shim uses, declared anew under our own names.
 *
 * Copper is built on machines without libfabric's headers and run on machines whose libfabric is
 * older or newer than any header, so it compiles against neither: these declarations describe the
 * interface of symbol version FABRIC_1.3 and API version 1.15, which every later libfabric keeps.
 * Tables of functions only ever grow at their end; entries that are not called are left untyped.
 * `abi_check.c` compares every size, offset and constant with real headers where there are any.
 */
#ifndef COPPER_LIBFABRIC_ABI_H
#define COPPER_LIBFABRIC_ABI_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LF_API_VERSION ((1u << 16) | 15u)

/* Capabilities and operation flags. */
#define LF_MSG (1ull << 1)
#define LF_RMA (1ull << 2)
#define LF_READ (1ull << 8)
#define LF_RECV (1ull << 10)
#define LF_SEND (1ull << 11)
#define LF_REMOTE_READ (1ull << 12)
#define LF_SOURCE (1ull << 57)
#define LF_PROV_ATTR_ONLY (1ull << 54)

/* Modes: the first 32 or 64 bytes of an operation's context belong to the provider. */
#define LF_CONTEXT (1ull << 59)
#define LF_CONTEXT2 (1ull << 52)

/* Memory registration modes. */
#define LF_MR_LOCAL (1 << 2)
#define LF_MR_VIRT_ADDR (1 << 4)
#define LF_MR_ALLOCATED (1 << 5)
#define LF_MR_PROV_KEY (1 << 6)
#define LF_MR_ENDPOINT (1 << 9)

/* Messages to one peer arrive in the order in which they were sent. */
#define LF_ORDER_SAS (1ull << 8)

#define LF_ADDR_UNSPEC UINT64_MAX

enum {
	LF_EP_RDM = 3,
	LF_PROGRESS_MANUAL = 2,
	LF_THREAD_DOMAIN = 3,
	LF_RM_ENABLED = 2,
	LF_CQ_FORMAT_TAGGED = 4,
	LF_WAIT_FD = 3,
	LF_CONTROL_GETWAIT = 5,
	LF_CONTROL_ENABLE = 6,
	/* errno values of libfabric's own */
	LF_EAVAIL = 259,
	LF_ENOKEY = 266,
};

struct lf_tx_attr {
	uint64_t caps, mode, op_flags, msg_order, comp_order;
	size_t inject_size, size, iov_limit, rma_iov_limit;
	uint32_t tclass;
};

struct lf_rx_attr {
	uint64_t caps, mode, op_flags, msg_order, comp_order;
	size_t total_buffered_recv, size, iov_limit;
};

struct lf_ep_attr {
	int type;
	uint32_t protocol, protocol_version;
	size_t max_msg_size, msg_prefix_size;
	size_t max_order_raw_size, max_order_war_size, max_order_waw_size;
	uint64_t mem_tag_format;
	size_t tx_ctx_cnt, rx_ctx_cnt, auth_key_size;
	uint8_t *auth_key;
};

struct lf_domain_attr {
	void *domain;
	char *name;
	int threading, control_progress, data_progress, resource_mgmt, av_type, mr_mode;
	size_t mr_key_size, cq_data_size, cq_cnt, ep_cnt, tx_ctx_cnt, rx_ctx_cnt;
	size_t max_ep_tx_ctx, max_ep_rx_ctx, max_ep_stx_ctx, max_ep_srx_ctx;
	size_t cntr_cnt, mr_iov_limit;
	uint64_t caps, mode;
	uint8_t *auth_key;
	size_t auth_key_size, max_err_data, mr_cnt;
	uint32_t tclass;
};

struct lf_fabric_attr {
	void *fabric;
	char *name, *prov_name;
	uint32_t prov_version, api_version;
};

struct lf_info {
	struct lf_info *next;
	uint64_t caps, mode;
	uint32_t addr_format;
	size_t src_addrlen, dest_addrlen;
	void *src_addr, *dest_addr, *handle;
	struct lf_tx_attr *tx_attr;
	struct lf_rx_attr *rx_attr;
	struct lf_ep_attr *ep_attr;
	struct lf_domain_attr *domain_attr;
	struct lf_fabric_attr *fabric_attr;
	void *nic;
};

/* Every object starts with a lf_fid. */
struct lf_fid;
struct lf_fid_ops {
	size_t size;
	int (*close)(struct lf_fid *fid);
	int (*bind)(struct lf_fid *fid, struct lf_fid *to, uint64_t flags);
	int (*control)(struct lf_fid *fid, int command, void *argument);
};
struct lf_fid {
	size_t fclass;
	void *context;
	struct lf_fid_ops *ops;
};

struct lf_fabric;
struct lf_domain;
struct lf_av;
struct lf_cq;
struct lf_ep;
struct lf_mr;

struct lf_fabric_ops {
	size_t size;
	int (*domain)(struct lf_fabric *, struct lf_info *, struct lf_domain **, void *context);
	void *passive_ep, *eq_open, *wait_open;
	int (*trywait)(struct lf_fabric *, struct lf_fid **, int count);
};
struct lf_fabric {
	struct lf_fid fid;
	struct lf_fabric_ops *ops;
	uint32_t api_version;
};

struct lf_av_attr {
	int type, rx_ctx_bits;
	size_t count, ep_per_node;
	const char *name;
	void *map_addr;
	uint64_t flags;
};
struct lf_cq_attr {
	size_t size;
	uint64_t flags;
	int format, wait_obj, signaling_vector, wait_cond;
	void *wait_set;
};

struct lf_domain_ops {
	size_t size;
	int (*av_open)(struct lf_domain *, struct lf_av_attr *, struct lf_av **, void *context);
	int (*cq_open)(struct lf_domain *, struct lf_cq_attr *, struct lf_cq **, void *context);
	int (*endpoint)(struct lf_domain *, struct lf_info *, struct lf_ep **, void *context);
};
struct lf_mr_ops {
	size_t size;
	int (*reg)(struct lf_fid *domain, const void *buffer, size_t length, uint64_t access,
		   uint64_t offset, uint64_t requested_key, uint64_t flags, struct lf_mr **,
		   void *context);
};
struct lf_domain {
	struct lf_fid fid;
	struct lf_domain_ops *ops;
	struct lf_mr_ops *mr;
};

struct lf_mr {
	struct lf_fid fid;
	void *descriptor;
	uint64_t key;
};

struct lf_av_ops {
	size_t size;
	int (*insert)(struct lf_av *, const void *address, size_t count, uint64_t *fi_addr,
		      uint64_t flags, void *context);
	void *insertsvc, *insertsym;
	int (*remove)(struct lf_av *, uint64_t *fi_addr, size_t count, uint64_t flags);
	void *lookup;
	const char *(*straddr)(struct lf_av *, const void *address, char *text, size_t *length);
};
struct lf_av {
	struct lf_fid fid;
	struct lf_av_ops *ops;
};

struct lf_cq_entry {
	void *op_context;
	uint64_t flags;
	size_t len;
	void *buf;
	uint64_t data, tag;
};
struct lf_cq_error {
	void *op_context;
	uint64_t flags;
	size_t len;
	void *buf;
	uint64_t data, tag;
	size_t olen;
	int err, prov_errno;
	void *err_data;
	size_t err_data_size;
	/* Room for what a newer provider may append without looking at our API version. */
	uint64_t reserved[8];
};
struct lf_cq_ops {
	size_t size;
	ssize_t (*read)(struct lf_cq *, void *entries, size_t count);
	void *readfrom;
	ssize_t (*readerr)(struct lf_cq *, struct lf_cq_error *, uint64_t flags);
};
struct lf_cq {
	struct lf_fid fid;
	struct lf_cq_ops *ops;
};

struct lf_ep_ops {
	size_t size;
	ssize_t (*cancel)(struct lf_fid *, void *context);
};
struct lf_cm_ops {
	size_t size;
	void *setname;
	int (*getname)(struct lf_fid *, void *address, size_t *length);
};
struct lf_msg_ops {
	size_t size;
	ssize_t (*recv)(struct lf_ep *, void *buffer, size_t length, void *descriptor,
			uint64_t from, void *context);
	void *recvv, *recvmsg;
	ssize_t (*send)(struct lf_ep *, const void *buffer, size_t length, void *descriptor,
			uint64_t to, void *context);
};
struct lf_rma_ops {
	size_t size;
	ssize_t (*read)(struct lf_ep *, void *buffer, size_t length, void *descriptor,
			uint64_t from, uint64_t address, uint64_t key, void *context);
};
struct lf_ep {
	struct lf_fid fid;
	struct lf_ep_ops *ops;
	struct lf_cm_ops *cm;
	struct lf_msg_ops *msg;
	struct lf_rma_ops *rma;
};

#endif
